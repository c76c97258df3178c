//! Writes the files of a checkpoint. No other code does.
//!
//! A writer may have been replaced without knowing it, and its requests may arrive late. So a file is created, or
//! replaces exactly the object that the writer has seen. It is never written to a folder with a manifest, whose files
//! must not change. The manifest is checked before every attempt, and again before a multipart upload is completed,
//! because no store completes one conditionally.

use bytes::Bytes;
use object_store::{Error, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::error::{CheckpointError, child_url, request};
use super::manifest::{FileEntry, MANIFEST};
use crate::retry::RetryPolicy;
use crate::storage::Store;
use crate::transfer;
use crate::uploads::Upload;

/// Writes a file into the folder of a checkpoint. It replaces the file of an earlier attempt, and writes nothing if the
/// same bytes exist. The file counts when a manifest names it. If the future is dropped before it resolves, the file is
/// unchanged. `folder` must not retry, because this function does.
///
/// # Errors
/// [`CheckpointError::Superseded`] if the checkpoint is complete and its file of this name is different or missing. The
/// store's error if retries end.
pub async fn write_file(
    folder: &Store,
    name: &str,
    bytes: Bytes,
    retry: &RetryPolicy,
) -> Result<FileEntry, CheckpointError> {
    let entry = FileEntry { size: bytes.len() as u64, sha256: transfer::hash(&bytes).await };
    let file = &File { folder, name, bytes, entry, retry };
    if transfer::is_one_request(&file.bytes) {
        file.put().await?;
    } else {
        file.retried(|| file.upload()).await?;
    }
    Ok(entry)
}

/// A file that is being written.
struct File<'a> {
    folder: &'a Store,
    name: &'a str,
    bytes: Bytes,
    entry: FileEntry,
    retry: &'a RetryPolicy,
}

/// The object that already has the name of the file.
enum Found {
    Nothing,
    Same,
    Another(UpdateVersion),
}

/// The result of one attempt to put a file.
enum Attempt {
    Put,
    /// There is a manifest.
    Complete,
    /// The object to replace does not exist, or is another one.
    Occupied,
    /// The store cannot replace a particular object: local folders cannot.
    Unconditional,
}

impl File<'_> {
    async fn retried<T, F>(&self, operation: impl FnMut() -> F) -> Result<T, CheckpointError>
    where
        F: Future<Output = Result<T, CheckpointError>>,
    {
        self.retry.run(child_url(self.folder, self.name), operation).await
    }

    async fn put(&self) -> Result<(), CheckpointError> {
        let mut mode = PutMode::Create;
        loop {
            mode = match self.retried(|| self.attempt_to_put(mode.clone())).await? {
                Attempt::Put => return Ok(()),
                Attempt::Complete => return self.settled(&self.retried(|| self.found()).await?),
                Attempt::Occupied => match self.retried(|| self.found()).await? {
                    Found::Same => return Ok(()),
                    Found::Nothing => PutMode::Create,
                    Found::Another(version) => PutMode::Update(version),
                },
                Attempt::Unconditional => PutMode::Overwrite,
            };
        }
    }

    async fn attempt_to_put(&self, mode: PutMode) -> Result<Attempt, CheckpointError> {
        // The writer of the object to replace may have completed the checkpoint.
        if self.is_complete().await? {
            return Ok(Attempt::Complete);
        }
        let (objects, path) = (self.folder.objects(), &self.folder.object(self.name));
        let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
        match objects.put_opts(path, PutPayload::from(self.bytes.clone()), options).await {
            Ok(_) => Ok(Attempt::Put),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Attempt::Occupied),
            Err(Error::NotImplemented { .. }) if matches!(mode, PutMode::Update(_)) => Ok(Attempt::Unconditional),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Uploads the file in one attempt.
    async fn upload(&self) -> Result<(), CheckpointError> {
        let is_complete = self.is_complete().await?;
        let found = self.found().await?;
        if is_complete || matches!(found, Found::Same) {
            return self.settled(&found);
        }
        let upload = Upload::begin(self.folder, self.name, self.retry).await;
        let mut upload = upload.map_err(|source| self.failed(source))?;
        let sent = async {
            transfer::send(&mut upload, &self.bytes).await.map_err(|source| self.failed(source))?;
            if self.is_complete().await? {
                return self.settled(&self.found().await?);
            }
            upload.complete().await.map_err(|source| self.failed(source))
        };
        let sent = sent.await;
        // This does nothing if the upload is complete.
        upload.abort().await;
        sent
    }

    /// Whether there is a manifest.
    async fn is_complete(&self) -> Result<bool, CheckpointError> {
        match self.folder.objects().head(&self.folder.object(MANIFEST)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// The result if nothing needs to be written: the file is the same, or there is a manifest.
    fn settled(&self, found: &Found) -> Result<(), CheckpointError> {
        match found {
            Found::Same => Ok(()),
            Found::Nothing | Found::Another(_) => {
                Err(CheckpointError::Superseded { url: child_url(self.folder, self.name) })
            }
        }
    }

    async fn found(&self) -> Result<Found, CheckpointError> {
        let (objects, path) = (self.folder.objects(), &self.folder.object(self.name));
        let found = async {
            let meta = objects.head(path).await?;
            let same = meta.size == self.entry.size
                && transfer::download(objects.as_ref(), path, meta.size).await?.1 == self.entry.sha256;
            let version = UpdateVersion { e_tag: meta.e_tag, version: meta.version };
            Ok(if same { Found::Same } else { Found::Another(version) })
        };
        match found.await {
            Err(Error::NotFound { .. }) => Ok(Found::Nothing),
            found => found.map_err(|source| self.failed(source)),
        }
    }

    fn failed(&self, source: Error) -> CheckpointError {
        request("write", self.folder, self.name, source)
    }
}
