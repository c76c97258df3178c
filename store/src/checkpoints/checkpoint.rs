//! One complete checkpoint, to read.

use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use super::error::{CheckpointError, child_url, request};
use super::manifest::{FileEntry, MANIFEST, Manifest};
use crate::storage::Store;
use crate::transfer;

/// One complete checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The folder of the checkpoint, which retries its requests.
    pub(super) folder: Store,
    pub(super) manifest: Manifest,
}

impl Checkpoint {
    /// The manifest of the checkpoint.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// URL of the checkpoint's folder.
    #[must_use]
    pub fn url(&self) -> String {
        self.folder.url()
    }

    /// The checkpoint in a folder that retries its requests.
    pub(super) async fn at(folder: Store) -> Result<Self, CheckpointError> {
        let bytes = stored_manifest(&folder).await?;
        let bytes = bytes.ok_or_else(|| CheckpointError::NoCheckpoint { url: folder.url() })?;
        let manifest = Manifest::from_json(&bytes)
            .map_err(|reason| CheckpointError::Manifest { url: child_url(&folder, MANIFEST), reason })?;
        Ok(Self { folder, manifest })
    }

    /// The bytes of a file, checked against the manifest's size and SHA-256.
    ///
    /// # Errors
    /// If the manifest has no such file, the store does not return it before retries end, or it is damaged.
    pub async fn file(&self, name: &str) -> Result<Bytes, CheckpointError> {
        let entry = self.manifest.files.get(name);
        let entry = entry.ok_or_else(|| CheckpointError::NoFile { url: self.url(), file: name.to_owned() })?;
        // Before reading: a file that grew must not fill the memory.
        self.check_size(name, entry).await?;
        let read = transfer::download(self.folder.objects().as_ref(), &self.folder.object(name), entry.size).await;
        let (bytes, sha256) = read.map_err(|source| request("read", &self.folder, name, source))?;
        self.compare(name, "size", bytes.len() as u64, entry.size)?;
        self.compare(name, "SHA-256", sha256, entry.sha256)?;
        Ok(bytes)
    }

    pub(super) async fn check_size(&self, name: &str, entry: &FileEntry) -> Result<(), CheckpointError> {
        let found = self.folder.objects().head(&self.folder.object(name)).await;
        let found = found.map_err(|source| request("read", &self.folder, name, source))?;
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
        Err(CheckpointError::Damaged { url: child_url(&self.folder, name), what, given, expected })
    }
}

/// The manifest in a folder that retries its requests, if there is one.
pub(super) async fn stored_manifest(folder: &Store) -> Result<Option<Bytes>, CheckpointError> {
    let read = match folder.objects().get(&folder.object(MANIFEST)).await {
        Ok(found) => found.bytes().await.map(Some),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    read.map_err(|source| request("read", folder, MANIFEST, source))
}
