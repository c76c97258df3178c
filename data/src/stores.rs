//! How this crate reaches object stores: through an implementation that the program passes in.
//!
//! It knows names, wildcards and byte ranges, but no network client; `antiphon-store` has those. A program that reads
//! data from S3 passes in an implementation of [`OpenStores`] for S3. [`LocalStores`] reads only the file system.

use std::fmt::Debug;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

/// The stores, shared by everything that reads data.
pub type Stores = Arc<dyn OpenStores>;

/// Opens the stores from which data are read.
pub trait OpenStores: Debug + Send + Sync {
    /// The store at `root`, `/` for the file system or a URL without a path such as `s3://bucket`. No request is sent
    /// yet.
    ///
    /// # Errors
    /// What is wrong and what to do about it, as a message.
    fn open(&self, root: &str) -> Result<Arc<dyn ObjectStore>, String>;

    /// Whether a request that failed with this error may succeed later.
    fn is_transient(&self, error: &object_store::Error) -> bool;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalStores;

impl LocalStores {
    /// The local stores as [`Stores`].
    #[must_use]
    pub fn shared() -> Stores {
        Arc::new(Self)
    }
}

impl OpenStores for LocalStores {
    fn open(&self, root: &str) -> Result<Arc<dyn ObjectStore>, String> {
        match root {
            "/" => Ok(Arc::new(LocalFileSystem::new())),
            _ => Err("this program reads local files only; give a path".to_owned()),
        }
    }

    fn is_transient(&self, _error: &object_store::Error) -> bool {
        false
    }
}
