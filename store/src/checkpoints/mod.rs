//! The checkpoints of one job in an object store.
//!
//! ```text
//! <job folder>/checkpoints/00000120/head.safetensors, projector.safetensors, encoder-audio.safetensors, …
//!                                   manifest.json        last, and only if there is none
//! ```
//! Invariants: a checkpoint exists when its manifest does, and a manifest is never overwritten; what is read is compared with
//! the manifest's sizes and SHA-256 before it is used; a part is not written over once there is a manifest; clearing up removes a
//! checkpoint's manifest before its parts, and never touches a checkpoint newer than the newest complete one, one that is said to
//! be in progress, or what a manifest names that was written meanwhile.

mod manifest;
mod parts;
mod retention;

use antiphon_core::ids::Turn;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

pub use manifest::{FORMAT, MANIFEST, Manifest, PartEntry};
pub use parts::write_part;

use crate::patience::{Patience, Transient};
use crate::storage::{self, StorageError, Store};

/// The folder of a job that holds its checkpoints.
pub const FOLDER: &str = "checkpoints";

/// What can go wrong with checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The URL cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A request to the store failed.
    #[error("cannot {doing} `{url}`: {}", storage::reason(source))]
    Request {
        /// `read`, `write`, …
        doing: &'static str,
        /// The object.
        url: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// There is no complete checkpoint.
    #[error("there is no complete checkpoint in `{url}`: no folder in it holds a {MANIFEST}")]
    NoCheckpoint {
        /// Where was looked.
        url: String,
    },
    /// The checkpoint is complete already; another coordinator may have written it.
    #[error("`{url}` exists already: its checkpoint is complete and is not written twice")]
    Exists {
        /// The manifest.
        url: String,
    },
    /// The checkpoint is complete already, with another part of this name or with none; whoever writes it has been replaced.
    #[error(
        "`{url}` is not written: its checkpoint is complete already, and this part of it is another's; it came too late"
    )]
    Superseded {
        /// The part.
        url: String,
    },
    /// The manifest is not one.
    #[error("`{url}` is not a manifest: {reason}")]
    Manifest {
        /// The manifest.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest does not name this part.
    #[error("`{url}` has no part `{part}`")]
    NoPart {
        /// The checkpoint.
        url: String,
        /// The part.
        part: String,
    },
    /// A part is not the one that the manifest names.
    #[error("`{url}` is damaged: its {what} is {given}, but the manifest says {expected}")]
    Damaged {
        /// The part.
        url: String,
        /// `size` or `SHA-256`.
        what: &'static str,
        /// What was found.
        given: String,
        /// What the manifest says.
        expected: String,
    },
}

impl CheckpointError {
    /// Whether an object was asked for that is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Request { source: object_store::Error::NotFound { .. }, .. })
    }
}

impl Transient for CheckpointError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_transient())
    }
}

/// All checkpoints of one job.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: Store,
    patience: Patience,
}

impl CheckpointStore {
    /// The checkpoints of the job whose folder this is. What the store refuses for the moment is not tried again; see
    /// [`Self::with_patience`].
    #[must_use]
    pub fn new(job_folder: &Store) -> Self {
        Self { folder: job_folder.child(FOLDER), patience: Patience::none() }
    }

    /// The same checkpoints, and every request to the store, of checkpoints that are opened here too, is made with this
    /// patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
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
    /// The checkpoint is complete, with another part of this name or none; the store refuses it, for longer than patience lasts.
    pub async fn write_part(&self, turn: Turn, name: &str, bytes: Bytes) -> Result<PartEntry, CheckpointError> {
        write_part(&self.place(turn), name, bytes, &self.patience).await
    }

    /// Completes a checkpoint: looks that every part is there with its size, then writes the manifest if there is none.
    /// Completing it again with the same manifest is as good as once, and so is finding one of the same parts, which a
    /// coordinator of another term has written.
    ///
    /// # Errors
    /// A part is not there or not as long as the manifest says; the checkpoint has another manifest already; the store
    /// refuses it, for longer than patience lasts.
    pub async fn complete(&self, manifest: &Manifest) -> Result<Checkpoint, CheckpointError> {
        let (place, patience) = (self.place(manifest.turn), self.patience.clone());
        let checkpoint = Checkpoint { place, manifest: manifest.clone(), patience };
        for (name, entry) in &manifest.parts {
            checkpoint.check_size(name, entry).await?;
        }
        let Err(error) = self.put_manifest(&checkpoint).await else { return Ok(checkpoint) };
        // The answer to our own write may have been lost on the way, so what is there decides.
        match stored_manifest(&checkpoint.place, &self.patience).await {
            Ok(None) | Err(_) => Err(error),
            Ok(Some(found)) if found == manifest.to_json() => Ok(checkpoint),
            Ok(Some(found)) if Manifest::from_json(&found).is_ok_and(|found| found.holds_the_same(manifest)) => {
                self.open(manifest.turn).await
            }
            Ok(Some(_)) => Err(CheckpointError::Exists { url: child_url(&checkpoint.place, MANIFEST) }),
        }
    }

    async fn put_manifest(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let (place, path) = (&checkpoint.place, &checkpoint.place.object(MANIFEST));
        let text = &Bytes::from(checkpoint.manifest.to_json());
        let put = self.patience.keep_trying(child_url(place, MANIFEST), || async move {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let put = place.objects().put_opts(path, PutPayload::from(text.clone()), options).await;
            put.map(drop).map_err(|source| request("write", place, MANIFEST, source))
        });
        put.await
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
        Checkpoint::at(self.place(turn), self.patience.clone()).await
    }

    fn place(&self, turn: Turn) -> Store {
        self.folder.child(&format!("{:08}", turn.0))
    }

    /// Every object below the folder that lies where a checkpoint's would, with its turn and its name.
    async fn objects(&self) -> Result<Vec<(Path, Turn, String)>, CheckpointError> {
        let folder = &self.folder;
        let listed = self.patience.keep_trying(folder.url(), || async move {
            let listed = folder.objects().list(Some(folder.prefix())).try_collect::<Vec<_>>().await;
            listed.map_err(|source| CheckpointError::Request { doing: "list", url: folder.url(), source })
        });
        Ok(listed.await?.into_iter().filter_map(|object| self.locate(object.location)).collect())
    }

    fn locate(&self, path: Path) -> Option<(Path, Turn, String)> {
        let rest: Vec<String> = path.prefix_match(self.folder.prefix())?.map(|p| p.as_ref().to_owned()).collect();
        let [turn, name] = <[String; 2]>::try_from(rest).ok()?;
        Some((path, turn_of(&turn)?, name))
    }
}

/// The turn that a checkpoint's folder is called after.
fn turn_of(folder: &str) -> Option<Turn> {
    let digits = folder.len() >= 8 && folder.bytes().all(|b| b.is_ascii_digit());
    folder.parse().ok().filter(|_| digits).map(Turn)
}

/// One complete checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    place: Store,
    manifest: Manifest,
    patience: Patience,
}

impl Checkpoint {
    /// Opens a checkpoint by the URL of its folder, or the newest of a job by the URL of the job's folder or of its
    /// `checkpoints` folder.
    ///
    /// # Errors
    /// There is none, or its manifest is not one.
    pub async fn open_url(url: &str) -> Result<Self, CheckpointError> {
        Self::open_patiently(url, &Patience::none()).await
    }

    /// As [`Checkpoint::open_url`], and every request to the store, to read parts too, is made with this patience.
    ///
    /// # Errors
    /// There is none, or its manifest is not one, or the store does not answer for longer than patience lasts.
    pub async fn open_patiently(url: &str, patience: &Patience) -> Result<Self, CheckpointError> {
        let place = Store::open(url)?;
        match Self::at(place.clone(), patience.clone()).await {
            Err(CheckpointError::NoCheckpoint { .. }) => {}
            answer => return answer,
        }
        let job = CheckpointStore::new(&place).with_patience(patience.clone());
        for store in [job, CheckpointStore { folder: place, patience: patience.clone() }] {
            if let Some(checkpoint) = store.newest().await? {
                return Ok(checkpoint);
            }
        }
        Err(CheckpointError::NoCheckpoint { url: url.to_owned() })
    }

    /// What the checkpoint holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// URL of the checkpoint's folder.
    #[must_use]
    pub fn url(&self) -> String {
        self.place.url()
    }

    async fn at(place: Store, patience: Patience) -> Result<Self, CheckpointError> {
        let bytes = stored_manifest(&place, &patience).await?;
        let bytes = bytes.ok_or_else(|| CheckpointError::NoCheckpoint { url: place.url() })?;
        let manifest = Manifest::from_json(&bytes)
            .map_err(|reason| CheckpointError::Manifest { url: child_url(&place, MANIFEST), reason })?;
        Ok(Self { place, manifest, patience })
    }
}

/// None where there is no manifest.
async fn stored_manifest(place: &Store, patience: &Patience) -> Result<Option<Bytes>, CheckpointError> {
    let path = &place.object(MANIFEST);
    let read = patience.keep_trying(child_url(place, MANIFEST), || async move {
        match place.objects().get(path).await {
            Ok(found) => found.bytes().await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
        .map_err(|source| request("read", place, MANIFEST, source))
    });
    read.await
}

fn child_url(place: &Store, name: &str) -> String {
    place.child(name).url()
}

fn request(doing: &'static str, place: &Store, name: &str, source: object_store::Error) -> CheckpointError {
    CheckpointError::Request { doing, url: child_url(place, name), source }
}
