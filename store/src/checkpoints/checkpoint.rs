//! One complete checkpoint, to read.

use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use super::error::{CheckpointError, child_url, request};
use super::manifest::{MANIFEST, Manifest, PartEntry};
use crate::storage::Store;
use crate::transfer;

/// One complete checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Which retries.
    pub(super) place: Store,
    pub(super) manifest: Manifest,
}

impl Checkpoint {
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

    /// The checkpoint in a place that retries.
    pub(super) async fn at(place: Store) -> Result<Self, CheckpointError> {
        let bytes = stored_manifest(&place).await?;
        let bytes = bytes.ok_or_else(|| CheckpointError::NoCheckpoint { url: place.url() })?;
        let manifest = Manifest::from_json(&bytes)
            .map_err(|reason| CheckpointError::Manifest { url: child_url(&place, MANIFEST), reason })?;
        Ok(Self { place, manifest })
    }

    /// The bytes of a part, compared with the manifest's size and SHA-256.
    ///
    /// # Errors
    /// The manifest has no such part, the store does not give it for as long as it is retried, or it is damaged.
    pub async fn part(&self, name: &str) -> Result<Bytes, CheckpointError> {
        let entry = self.manifest.parts.get(name);
        let entry = entry.ok_or_else(|| CheckpointError::NoPart { url: self.url(), part: name.to_owned() })?;
        // Before reading: a part that grew must not fill the memory.
        self.check_size(name, entry).await?;
        let read = transfer::download(self.place.objects().as_ref(), &self.place.object(name), entry.size).await;
        let (bytes, sha256) = read.map_err(|source| request("read", &self.place, name, source))?;
        self.compare(name, "size", bytes.len() as u64, entry.size)?;
        self.compare(name, "SHA-256", sha256, entry.sha256)?;
        Ok(bytes)
    }

    pub(super) async fn check_size(&self, name: &str, entry: &PartEntry) -> Result<(), CheckpointError> {
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

/// The manifest in a place that retries; None where there is none.
pub(super) async fn stored_manifest(place: &Store) -> Result<Option<Bytes>, CheckpointError> {
    let read = match place.objects().get(&place.object(MANIFEST)).await {
        Ok(found) => found.bytes().await.map(Some),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    read.map_err(|source| request("read", place, MANIFEST, source))
}
