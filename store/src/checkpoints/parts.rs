//! Parts on their way to and from a checkpoint's folder: the one place that writes and reads them.

use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use super::{Checkpoint, CheckpointError, PartEntry, child_url, request};
use crate::patience::Patience;
use crate::storage::Store;
use crate::transfer;

/// Writes a part into the folder of a checkpoint, in place of what an earlier attempt may have left there; it counts once a
/// manifest names it. If the future is dropped before it is done, the part as it was stays as it was.
///
/// # Errors
/// The store refuses it, for longer than `patience` lasts.
pub async fn write_part(
    folder: &Store,
    name: &str,
    bytes: Bytes,
    patience: &Patience,
) -> Result<PartEntry, CheckpointError> {
    let entry = PartEntry { size: bytes.len() as u64, sha256: transfer::hash(&bytes).await };
    let bytes = &bytes;
    let written = patience.keep_trying(child_url(folder, name), || async move {
        transfer::upload(folder, name, bytes).await.map_err(|source| request("write", folder, name, source))
    });
    written.await.map(|()| entry)
}

impl Checkpoint {
    /// The bytes of a part, compared with the manifest's size and SHA-256.
    ///
    /// # Errors
    /// The manifest has no such part, the store does not give it within this checkpoint's patience, or it is damaged.
    pub async fn part(&self, name: &str) -> Result<Bytes, CheckpointError> {
        let entry = self.manifest.parts.get(name);
        let entry = entry.ok_or_else(|| CheckpointError::NoPart { url: self.url(), part: name.to_owned() })?;
        // Before reading: a part that grew must not fill the memory.
        self.check_size(name, entry).await?;
        let (place, path) = (&self.place, &self.place.object(name));
        let read = self.patience.keep_trying(child_url(place, name), || async move {
            let read = transfer::download(place.objects().as_ref(), path, entry.size).await;
            read.map_err(|source| request("read", place, name, source))
        });
        let (bytes, sha256) = read.await?;
        self.compare(name, "size", bytes.len() as u64, entry.size)?;
        self.compare(name, "SHA-256", sha256, entry.sha256)?;
        Ok(bytes)
    }

    pub(super) async fn check_size(&self, name: &str, entry: &PartEntry) -> Result<(), CheckpointError> {
        let (place, path) = (&self.place, &self.place.object(name));
        let found = self.patience.keep_trying(child_url(place, name), || async move {
            place.objects().head(path).await.map_err(|source| request("read", place, name, source))
        });
        self.compare(name, "size", found.await?.size, entry.size)
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
