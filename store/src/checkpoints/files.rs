//! Parts on their way to a checkpoint's folder: the one place that writes them.
//!
//! Whoever writes a part may have been replaced without knowing it, and its requests may arrive late. So a part is put where there
//! is none, or in place of the very object that was looked at; and never in a folder that has a manifest, where what the manifest
//! names is to stay. That is looked for before every try, and again before an upload in pieces is completed, which no store does on
//! a condition.

use bytes::Bytes;
use object_store::{Error, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::error::{CheckpointError, child_url, request};
use super::manifest::{MANIFEST, PartEntry};
use crate::retry::RetryPolicy;
use crate::storage::Store;
use crate::transfer;
use crate::uploads::Upload;

/// Writes a part into the folder of a checkpoint, in place of what an earlier attempt may have left there; it counts once a
/// manifest names it. Where the same bytes are there already nothing is written. If the future is dropped before it is done, the
/// part as it was stays as it was.
///
/// # Errors
/// The checkpoint is complete, with another part of this name or none: [`CheckpointError::Superseded`]. The store refuses it, for
/// longer than `retry` allows.
pub async fn write_part(
    folder: &Store,
    name: &str,
    bytes: Bytes,
    retry: &RetryPolicy,
) -> Result<PartEntry, CheckpointError> {
    let entry = PartEntry { size: bytes.len() as u64, sha256: transfer::hash(&bytes).await };
    let part = &Part { folder, name, bytes, entry, retry };
    if transfer::is_one_piece(&part.bytes) {
        part.put().await?;
    } else {
        part.retried(|| part.upload()).await?;
    }
    Ok(entry)
}

/// A part that is being written.
struct Part<'a> {
    folder: &'a Store,
    name: &'a str,
    bytes: Bytes,
    entry: PartEntry,
    retry: &'a RetryPolicy,
}

/// What is there in a part's place.
enum Found {
    Nothing,
    TheSame,
    Another(UpdateVersion),
}

/// What came of one try to put a part.
enum Tried {
    Put,
    /// There is a manifest.
    Complete,
    /// What is there is not what was to be replaced.
    Occupied,
    /// The store cannot tell one object from the next in its place: folders cannot.
    Blind,
}

impl Part<'_> {
    async fn retried<T, F>(&self, operation: impl FnMut() -> F) -> Result<T, CheckpointError>
    where
        F: Future<Output = Result<T, CheckpointError>>,
    {
        self.retry.run(child_url(self.folder, self.name), operation).await
    }

    async fn put(&self) -> Result<(), CheckpointError> {
        let mut mode = PutMode::Create;
        loop {
            mode = match self.retried(|| self.try_to_put(mode.clone())).await? {
                Tried::Put => return Ok(()),
                Tried::Complete => return self.settled(&self.retried(|| self.found()).await?),
                Tried::Occupied => match self.retried(|| self.found()).await? {
                    Found::TheSame => return Ok(()),
                    Found::Nothing => PutMode::Create,
                    Found::Another(version) => PutMode::Update(version),
                },
                Tried::Blind => PutMode::Overwrite,
            };
        }
    }

    async fn try_to_put(&self, mode: PutMode) -> Result<Tried, CheckpointError> {
        // Whoever put what is to be replaced may have completed the checkpoint by now.
        if self.is_complete().await? {
            return Ok(Tried::Complete);
        }
        let (objects, path) = (self.folder.objects(), &self.folder.object(self.name));
        let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
        match objects.put_opts(path, PutPayload::from(self.bytes.clone()), options).await {
            Ok(_) => Ok(Tried::Put),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Tried::Occupied),
            Err(Error::NotImplemented { .. }) if matches!(mode, PutMode::Update(_)) => Ok(Tried::Blind),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// One try.
    async fn upload(&self) -> Result<(), CheckpointError> {
        let is_complete = self.is_complete().await?;
        let found = self.found().await?;
        if is_complete || matches!(found, Found::TheSame) {
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
        // Unless it is complete.
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

    /// What is there stays, because it is the same or because there is a manifest.
    fn settled(&self, found: &Found) -> Result<(), CheckpointError> {
        match found {
            Found::TheSame => Ok(()),
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
            Ok(if same { Found::TheSame } else { Found::Another(version) })
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
