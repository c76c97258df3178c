//! The stores for data and weights: all that `antiphon-store` can open.

use std::sync::Arc;

use antiphon_data::stores::{OpenStores, Stores};
use antiphon_store::retry::Transient as _;
use antiphon_store::storage::{StorageError, Store, innermost};
use object_store::ObjectStore;

/// The file system, S3, Google Cloud Storage, Azure Blob Storage and web servers.
#[derive(Debug, Clone, Copy)]
struct AllStores;

/// The stores that data and weights are read from: the file system, S3, Google Cloud Storage, Azure Blob Storage and
/// web servers.
#[must_use]
pub fn stores() -> Stores {
    Arc::new(AllStores)
}

impl OpenStores for AllStores {
    fn open(&self, root: &str) -> Result<Arc<dyn ObjectStore>, String> {
        match Store::open_to_read(root) {
            Ok(store) => Ok(Arc::clone(store.objects())),
            Err(StorageError::Settings { source, .. }) => {
                Err(format!("{}; check the URL and this store's environment variables", innermost(&source)))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn is_transient(&self, error: &object_store::Error) -> bool {
        error.is_transient()
    }
}
