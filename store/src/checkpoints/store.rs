//! All checkpoints of a job.

use antiphon_core::ids::Turn;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, PutMode, PutOptions, PutPayload};

use super::checkpoint::{Checkpoint, stored_manifest};
use super::error::{CheckpointError, child_url, request};
use super::files::write_part;
use super::manifest::{MANIFEST, Manifest, PartEntry};
use crate::retry::RetryPolicy;
use crate::storage::{Store, StoreOptions};

/// The folder of a job that holds its checkpoints.
pub const FOLDER: &str = "checkpoints";

/// All checkpoints of one job.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    /// Which does each request once.
    plain: Store,
    /// Which retries.
    pub(super) folder: Store,
    pub(super) retry: RetryPolicy,
}

impl CheckpointStore {
    /// The checkpoints of the job whose folder this is. No request is retried; see [`Self::with_retry`].
    #[must_use]
    pub fn new(job_folder: &Store) -> Self {
        Self::of(job_folder.child(FOLDER))
    }

    fn of(folder: Store) -> Self {
        Self { plain: folder.clone(), folder, retry: RetryPolicy::none() }
    }

    /// The same checkpoints, and every request to the store, of checkpoints that are opened here too, is retried so.
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
        self.place(turn).url()
    }

    /// Writes a part of the checkpoint at `turn`; it counts once a manifest names it. See [`write_part`].
    ///
    /// # Errors
    /// The checkpoint is complete, with another part of this name or none; the store refuses it, for longer than it is retried.
    pub async fn write_part(&self, turn: Turn, name: &str, bytes: Bytes) -> Result<PartEntry, CheckpointError> {
        write_part(&place_of(&self.plain, turn), name, bytes, &self.retry).await
    }

    /// Completes a checkpoint: looks that every part is there with its size, then writes the manifest if there is none.
    /// Completing it again with the same manifest is as good as once, and so is finding one of the same parts, which a
    /// coordinator of another term has written.
    ///
    /// # Errors
    /// A part is not there or not as long as the manifest says; the checkpoint has another manifest already; the store
    /// refuses it, for longer than it is retried.
    pub async fn complete(&self, manifest: &Manifest) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint { place: self.place(manifest.turn), manifest: manifest.clone() };
        for (name, entry) in &manifest.parts {
            checkpoint.check_size(name, entry).await?;
        }
        let Err(error) = self.put_manifest(&checkpoint).await else { return Ok(checkpoint) };
        // The answer to our own write may have been lost on the way, so what is there decides.
        match stored_manifest(&checkpoint.place).await {
            Ok(None) | Err(_) => Err(error),
            Ok(Some(found)) if found == manifest.to_json() => Ok(checkpoint),
            Ok(Some(found)) if Manifest::from_json(&found).is_ok_and(|found| found.holds_the_same(manifest)) => {
                self.open(manifest.turn).await
            }
            Ok(Some(_)) => Err(CheckpointError::Exists { url: child_url(&checkpoint.place, MANIFEST) }),
        }
    }

    async fn put_manifest(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (place, text) = (&checkpoint.place, PutPayload::from(checkpoint.manifest.to_json()));
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = place.objects().put_opts(&place.object(MANIFEST), text, options).await;
        put.map(drop).map_err(|source| request("write", place, MANIFEST, source))
    }

    /// The turns of the complete checkpoints, ascending.
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
    /// The store does not answer, or its manifest is not one.
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
        Checkpoint::at(self.place(turn)).await
    }

    /// Where the checkpoint at `turn` lies; it retries.
    pub(super) fn place(&self, turn: Turn) -> Store {
        place_of(&self.folder, turn)
    }

    /// Every object below the folder that lies where a checkpoint's would, with its turn and its name.
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

    /// As [`Checkpoint::open_url`], in a store that is opened with these options, where every request, to read parts too, is
    /// retried so.
    ///
    /// # Errors
    /// There is none, or its manifest is not one, or the store does not answer for as long as it is retried.
    pub async fn open_with(url: &str, options: &StoreOptions, retry: &RetryPolicy) -> Result<Self, CheckpointError> {
        let place = options.open(url)?;
        match Self::at(place.retrying(retry)).await {
            Err(CheckpointError::NoCheckpoint { .. }) => {}
            answer => return answer,
        }
        for store in [CheckpointStore::new(&place), CheckpointStore::of(place)] {
            if let Some(checkpoint) = store.with_retry(retry.clone()).newest().await? {
                return Ok(checkpoint);
            }
        }
        Err(CheckpointError::NoCheckpoint { url: url.to_owned() })
    }
}

fn place_of(folder: &Store, turn: Turn) -> Store {
    folder.child(&format!("{:08}", turn.0))
}

/// The turn that a checkpoint's folder is called after.
pub(super) fn turn_of(folder: &str) -> Option<Turn> {
    let digits = folder.len() >= 8 && folder.bytes().all(|b| b.is_ascii_digit());
    folder.parse().ok().filter(|_| digits).map(Turn)
}
