//! How this crate reaches object stores: through whatever the program hands in.
//!
//! It knows names, wildcards and byte ranges, and no network client: those are `antiphon-store`'s. A program that reads data
//! from S3 hands in an implementation of [`OpenStores`] that opens it; [`LocalStores`] reads the file system alone.

use std::fmt::Debug;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

/// Shared by everything that reads data.
pub type Stores = Arc<dyn OpenStores>;

/// Opens the stores that data are read from.
pub trait OpenStores: Debug + Send + Sync {
    /// The store at `root`, `/` for the file system or a URL without a path such as `s3://bucket`. Nothing is asked of the
    /// store yet.
    ///
    /// # Errors
    /// What is wrong and what to do about it, for a person.
    fn open(&self, root: &str) -> Result<Arc<dyn ObjectStore>, String>;

    /// Whether the request that failed so may succeed a little later.
    fn is_transient(&self, error: &object_store::Error) -> bool;
}

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalStores;

impl LocalStores {
    /// Ready to be handed in.
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
