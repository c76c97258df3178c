//! All checkpoints of a job.

use antiphon_core::ids::Turn;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, PutMode, PutOptions, PutPayload};

use super::checkpoint::{Checkpoint, stored_manifest};
use super::error::{CheckpointError, child_url, request};
use super::files::write_file;
use super::manifest::{FileEntry, MANIFEST, Manifest};
use crate::retry::RetryPolicy;
use crate::storage::{Store, StoreOptions};

/// The folder of a job that holds its checkpoints.
pub const FOLDER: &str = "checkpoints";

/// All checkpoints of one job.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    /// The folder, without retries.
    plain: Store,
    /// The same folder, with retries.
    pub(super) folder: Store,
    pub(super) retry: RetryPolicy,
}

impl CheckpointStore {
    /// The checkpoints in a job's folder. Requests are not retried; see [`Self::with_retry`].
    #[must_use]
    pub fn new(job_folder: &Store) -> Self {
        Self::in_folder(job_folder.child(FOLDER))
    }

    fn in_folder(folder: Store) -> Self {
        Self { plain: folder.clone(), folder, retry: RetryPolicy::none() }
    }

    /// The same checkpoints, with retries of every request to the store, including requests of checkpoints that are
    /// opened from here.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { folder: self.plain.retrying(&retry), retry, ..self }
    }

    /// URL of the folder of all checkpoints.
    #[must_use]
    pub fn url(&self) -> String {
        self.folder.url()
    }

    /// URL of one checkpoint's folder, complete or not.
    #[must_use]
    pub fn checkpoint_url(&self, turn: Turn) -> String {
        self.checkpoint_folder(turn).url()
    }

    /// Writes a file of the checkpoint at `turn`. The file counts when a manifest names it. See [`write_file`].
    ///
    /// # Errors
    /// If the checkpoint is complete and its file of this name is different or missing, or if the store fails until
    /// retries end.
    pub async fn write_file(&self, turn: Turn, name: &str, bytes: Bytes) -> Result<FileEntry, CheckpointError> {
        write_file(&folder_at(&self.plain, turn), name, bytes, &self.retry).await
    }

    /// Completes a checkpoint: checks that every file is there with its size, then writes the manifest if there is
    /// none. Also succeeds if the same manifest exists, or one with the same files by a coordinator of another term.
    ///
    /// # Errors
    /// If a file is missing or has another size than in the manifest, if the checkpoint has another manifest, or if the
    /// store fails until retries end.
    pub async fn complete(&self, manifest: &Manifest) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint { folder: self.checkpoint_folder(manifest.turn), manifest: manifest.clone() };
        for (name, entry) in &manifest.files {
            checkpoint.check_size(name, entry).await?;
        }
        let Err(error) = self.put_manifest(&checkpoint).await else { return Ok(checkpoint) };
        // The response to our own write may have been lost, so the stored manifest decides.
        match stored_manifest(&checkpoint.folder).await {
            Ok(None) | Err(_) => Err(error),
            Ok(Some(found)) if found == manifest.to_json() => Ok(checkpoint),
            Ok(Some(found)) if Manifest::from_json(&found).is_ok_and(|found| found.holds_the_same(manifest)) => {
                self.open(manifest.turn).await
            }
            Ok(Some(_)) => Err(CheckpointError::Exists { url: child_url(&checkpoint.folder, MANIFEST) }),
        }
    }

    async fn put_manifest(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (folder, text) = (&checkpoint.folder, PutPayload::from(checkpoint.manifest.to_json()));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = folder.objects().put_opts(&folder.object(MANIFEST), text, options).await;
        put.map(drop).map_err(|source| request("write", folder, MANIFEST, source))
    }

    /// The turns of the complete checkpoints, in ascending order.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list(&self) -> Result<Vec<Turn>, CheckpointError> {
        let objects = self.objects().await?;
        let complete = objects.iter().filter(|(_, _, name)| name == MANIFEST);
        let mut turns: Vec<Turn> = complete.map(|(_, turn, _)| *turn).collect();
        turns.sort_unstable();
        Ok(turns)
    }

    /// The newest complete checkpoint, if there is one.
    ///
    /// # Errors
    /// If the store does not answer, or the manifest is invalid.
    pub async fn newest(&self) -> Result<Option<Checkpoint>, CheckpointError> {
        match self.list().await?.last() {
            None => Ok(None),
            Some(turn) => self.open(*turn).await.map(Some),
        }
    }

    /// The complete checkpoint at `turn`.
    ///
    /// # Errors
    /// There is none, or its manifest is not one.
    pub async fn open(&self, turn: Turn) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::at(self.checkpoint_folder(turn)).await
    }

    /// The folder of the checkpoint at `turn`, which retries its requests.
    pub(super) fn checkpoint_folder(&self, turn: Turn) -> Store {
        folder_at(&self.folder, turn)
    }

    /// Every object in the folder of a checkpoint, with its turn and its name.
    pub(super) async fn objects(&self) -> Result<Vec<(Path, Turn, String)>, CheckpointError> {
        let listed = self.folder.objects().list(Some(self.folder.prefix())).try_collect::<Vec<_>>().await;
        let failed = |source| CheckpointError::Request { doing: "list", url: self.folder.url(), source };
        Ok(listed.map_err(failed)?.into_iter().filter_map(|object| self.locate(object.location)).collect())
    }

    fn locate(&self, path: Path) -> Option<(Path, Turn, String)> {
        let rest: Vec<String> = path.prefix_match(self.folder.prefix())?.map(|p| p.as_ref().to_owned()).collect();
        let [turn, name] = <[String; 2]>::try_from(rest).ok()?;
        Some((path, turn_of(&turn)?, name))
    }
}

impl Checkpoint {
    /// Opens a checkpoint by the URL of its folder, or the newest of a job by the URL of the job's folder or of its
    /// `checkpoints` folder.
    ///
    /// # Errors
    /// There is none, or its manifest is not one.
    pub async fn open_url(url: &str) -> Result<Self, CheckpointError> {
        Self::open_with(url, &StoreOptions::default(), &RetryPolicy::none()).await
    }

    /// As [`Checkpoint::open_url`], with these store options, and with retries of every request, including later reads
    /// of files.
    ///
    /// # Errors
    /// If there is none, its manifest is invalid, or the store does not answer before retries end.
    pub async fn open_with(url: &str, options: &StoreOptions, retry: &RetryPolicy) -> Result<Self, CheckpointError> {
        let folder = options.open(url)?;
        match Self::at(folder.retrying(retry)).await {
            Err(CheckpointError::NoCheckpoint { .. }) => {}
            answer => return answer,
        }
        for store in [CheckpointStore::new(&folder), CheckpointStore::in_folder(folder)] {
            if let Some(checkpoint) = store.with_retry(retry.clone()).newest().await? {
                return Ok(checkpoint);
            }
        }
        Err(CheckpointError::NoCheckpoint { url: url.to_owned() })
    }
}

fn folder_at(folder: &Store, turn: Turn) -> Store {
    folder.child(&format!("{:08}", turn.0))
}

/// The turn in the name of a checkpoint's folder.
pub(super) fn turn_of(folder: &str) -> Option<Turn> {
    let digits = folder.len() >= 8 && folder.bytes().all(|b| b.is_ascii_digit());
    folder.parse().ok().filter(|_| digits).map(Turn)
}
