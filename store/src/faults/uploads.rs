//! Uploads with faults.

use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::config::Faults;
use super::fate::{Fate, Requests};
use crate::multipart::Uploads;

/// An upload with faults, in a store without uploads by id. An abort always succeeds, because it would not be retried.
#[derive(Debug)]
pub(super) struct FaultyUpload {
    pub(super) upload: Box<dyn MultipartUpload>,
    pub(super) faults: Faults,
    pub(super) requests: Requests,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, chunk: PutPayload) -> UploadPart {
        let fate = Fate::of(&self.faults, self.requests.next());
        let sent = self.upload.put_part(chunk);
        Box::pin(async move {
            fate.before().await?;
            sent.await?;
            fate.after(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fate = Fate::of(&self.faults, self.requests.next());
        fate.before().await?;
        fate.after(self.upload.complete().await?)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

/// Uploads by id, with faults.
pub(crate) struct FaultyUploads {
    inner: Uploads,
    faults: Faults,
    requests: Requests,
}

impl FaultyUploads {
    pub(crate) fn new(inner: Uploads, faults: Faults) -> Self {
        Self { inner, faults, requests: Requests::of_process() }
    }

    async fn carried_out<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = Fate::of(&self.faults, self.requests.next());
        fate.before().await?;
        fate.after(request.await?)
    }
}

#[async_trait]
impl MultipartStore for FaultyUploads {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.carried_out(self.inner.0.create_multipart(path)).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, number: usize, chunk: PutPayload) -> Result<PartId> {
        self.carried_out(self.inner.0.put_part(path, id, number, chunk)).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, chunks: Vec<PartId>) -> Result<PutResult> {
        self.carried_out(self.inner.0.complete_multipart(path, id, chunks)).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.carried_out(self.inner.0.abort_multipart(path, id)).await
    }
}
