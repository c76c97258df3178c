//! Stores in memory, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, MultipartId, ObjectStore, PutPayload, PutResult, Result};

use crate::multipart::Uploads;

/// The store of this name, which is shared in this process.
pub(crate) fn store(name: &str) -> (Arc<dyn ObjectStore>, Uploads) {
    static STORES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores.entry(name.to_owned()).or_default();
    (Arc::clone(store) as Arc<dyn ObjectStore>, Uploads(Arc::new(UploadsInMemory(Arc::clone(store)))))
}

/// Uploads to memory, with a server's errors for unknown ids.
struct UploadsInMemory(Arc<InMemory>);

/// The prefix of the store's error for an unknown upload; its type is private.
const UNKNOWN: &str = "MultipartUpload not found";

fn like_a_server<T>(answer: Result<T>, path: &Path) -> Result<T> {
    match answer {
        Err(Error::Generic { source, .. }) if source.to_string().starts_with(UNKNOWN) => {
            Err(Error::NotFound { path: path.to_string(), source })
        }
        other => other,
    }
}

#[async_trait]
impl MultipartStore for UploadsInMemory {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.0.create_multipart(path).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, number: usize, chunk: PutPayload) -> Result<PartId> {
        like_a_server(self.0.put_part(path, id, number, chunk).await, path)
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, chunks: Vec<PartId>) -> Result<PutResult> {
        like_a_server(self.0.complete_multipart(path, id, chunks).await, path)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        like_a_server(self.0.abort_multipart(path, id).await, path)
    }
}
