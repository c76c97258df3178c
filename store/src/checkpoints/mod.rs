//! The checkpoints of one job in an object store.
//!
//! ```text
//! <job folder>/checkpoints/00000120/head.safetensors, projector.safetensors, encoder-audio.safetensors, …
//!                                   manifest.json        last, and only if there is none
//! ```
//! Invariants: a checkpoint exists when its manifest does, and a manifest is never overwritten; what is read is compared with
//! the manifest's sizes and SHA-256 before it is used; clearing up removes a checkpoint's manifest before its parts, and never
//! touches a checkpoint newer than the newest complete one or one that is said to be in progress.

mod manifest;
mod retention;

use antiphon_core::digest::sha256;
use antiphon_core::ids::Turn;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

pub use manifest::{FORMAT, MANIFEST, Manifest, PartEntry};

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

/// All checkpoints of one job.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    folder: Store,
}

impl CheckpointStore {
    /// The checkpoints of the job whose folder this is.
    #[must_use]
    pub fn new(job_folder: &Store) -> Self {
        Self { folder: job_folder.child(FOLDER) }
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

    /// Writes a part of the checkpoint at `turn`; it counts once a manifest names it.
    ///
    /// # Errors
    /// The store refuses it.
    pub async fn write_part(&self, turn: Turn, name: &str, bytes: Bytes) -> Result<PartEntry, CheckpointError> {
        let place = self.place(turn);
        let entry = PartEntry { size: bytes.len() as u64, sha256: sha256(&bytes) };
        let put = place.objects().put(&place.object(name), PutPayload::from(bytes)).await;
        put.map_err(|source| request("write", &place, name, source))?;
        Ok(entry)
    }

    /// Completes a checkpoint: looks that every part is there with its size, then writes the manifest if there is none.
    /// Completing it again with the same manifest is as good as once.
    ///
    /// # Errors
    /// A part is not there or not as long as the manifest says; the checkpoint has another manifest already; the store
    /// refuses it.
    pub async fn complete(&self, manifest: &Manifest) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint { place: self.place(manifest.turn), manifest: manifest.clone() };
        for (name, entry) in &manifest.parts {
            checkpoint.check_size(name, entry).await?;
        }
        let Err(error) = self.put_manifest(&checkpoint).await else { return Ok(checkpoint) };
        // The answer to our own write may have been lost on the way, so what is there decides.
        match checkpoint.stored_manifest().await {
            None => Err(error),
            Some(found) if found == manifest.to_json() => Ok(checkpoint),
            Some(_) => Err(CheckpointError::Exists { url: child_url(&checkpoint.place, MANIFEST) }),
        }
    }

    async fn put_manifest(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let place = &checkpoint.place;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let payload = PutPayload::from(checkpoint.manifest.to_json().into_bytes());
        let put = place.objects().put_opts(&place.object(MANIFEST), payload, options).await;
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

    fn place(&self, turn: Turn) -> Store {
        self.folder.child(&format!("{:08}", turn.0))
    }

    /// Every object below the folder that lies where a checkpoint's would, with its turn and its name.
    async fn objects(&self) -> Result<Vec<(Path, Turn, String)>, CheckpointError> {
        let listed = self.folder.objects().list(Some(self.folder.prefix())).try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|source| CheckpointError::Request { doing: "list", url: self.url(), source })?;
        Ok(listed.into_iter().filter_map(|object| self.locate(object.location)).collect())
    }

    fn locate(&self, path: Path) -> Option<(Path, Turn, String)> {
        let rest: Vec<String> = path.prefix_match(self.folder.prefix())?.map(|p| p.as_ref().to_owned()).collect();
        let [turn, name] = <[String; 2]>::try_from(rest).ok()?;
        let digits = turn.len() >= 8 && turn.bytes().all(|b| b.is_ascii_digit());
        Some((path, Turn(turn.parse().ok().filter(|_| digits)?), name))
    }
}

/// One complete checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    place: Store,
    manifest: Manifest,
}

impl Checkpoint {
    /// Opens a checkpoint by the URL of its folder, or the newest of a job by the URL of the job's folder or of its
    /// `checkpoints` folder.
    ///
    /// # Errors
    /// There is none, or its manifest is not one.
    pub async fn open_url(url: &str) -> Result<Self, CheckpointError> {
        let place = Store::open(url)?;
        match Self::at(place.clone()).await {
            Err(CheckpointError::NoCheckpoint { .. }) => {}
            answer => return answer,
        }
        for store in [CheckpointStore::new(&place), CheckpointStore { folder: place }] {
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

    /// The bytes of a part, compared with the manifest's size and SHA-256.
    ///
    /// # Errors
    /// The manifest has no such part, the store does not give it, or it is damaged.
    pub async fn part(&self, name: &str) -> Result<Bytes, CheckpointError> {
        let entry = self.manifest.parts.get(name);
        let entry = entry.ok_or_else(|| CheckpointError::NoPart { url: self.url(), part: name.to_owned() })?;
        self.check_size(name, entry).await?;
        let bytes = read(&self.place, name).await.map_err(|source| request("read", &self.place, name, source))?;
        self.compare(name, "size", bytes.len() as u64, entry.size)?;
        self.compare(name, "SHA-256", sha256(&bytes), entry.sha256)?;
        Ok(bytes)
    }

    async fn at(place: Store) -> Result<Self, CheckpointError> {
        let bytes = match read(&place, MANIFEST).await {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(CheckpointError::NoCheckpoint { url: place.url() });
            }
            Err(source) => return Err(request("read", &place, MANIFEST, source)),
        };
        let manifest = Manifest::from_json(&bytes)
            .map_err(|reason| CheckpointError::Manifest { url: child_url(&place, MANIFEST), reason })?;
        Ok(Self { place, manifest })
    }

    /// Before reading: a part that grew must not fill the memory.
    async fn stored_manifest(&self) -> Option<Bytes> {
        let found = self.place.objects().get(&self.place.object(MANIFEST)).await.ok()?;
        found.bytes().await.ok()
    }

    async fn check_size(&self, name: &str, entry: &PartEntry) -> Result<(), CheckpointError> {
        let found = self.place.objects().head(&self.place.object(name)).await;
        let found = found.map_err(|source| request("read", &self.place, name, source))?;
        self.compare(name, "size", found.size, entry.size)
    }

    fn compare<T: PartialEq + ToString>(
        &self,
        name: &str,
        what: &'static str,
        given: T,
        expected: T,
    ) -> Result<(), CheckpointError> {
        if given == expected {
            return Ok(());
        }
        let (given, expected) = (given.to_string(), expected.to_string());
        Err(CheckpointError::Damaged { url: child_url(&self.place, name), what, given, expected })
    }
}

async fn read(place: &Store, name: &str) -> object_store::Result<Bytes> {
    place.objects().get(&place.object(name)).await?.bytes().await
}

fn child_url(place: &Store, name: &str) -> String {
    place.child(name).url()
}

fn request(doing: &'static str, place: &Store, name: &str, source: object_store::Error) -> CheckpointError {
    CheckpointError::Request { doing, url: child_url(place, name), source }
}
