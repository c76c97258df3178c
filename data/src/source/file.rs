//! A file of a store, read by range. The store's client retries requests a few times. Every wait is bounded.

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use antiphon_process::innermost;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::super::error::DataError;
use super::super::stores::Stores;

/// The timeout of one request, including its retries. A request reads at most [`BLOCK`], so the timeout bounds silence,
/// not the size of a file.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// The largest number of bytes in one request.
const BLOCK: u64 = 4 << 20;
/// The number of blocks of one range that are requested concurrently.
const BLOCKS_AT_ONCE: usize = 2;
/// Ranges no further apart than this are fetched as one.
const GAP: u64 = 1 << 20;

/// A file in a store.
#[derive(Debug, Clone)]
pub struct Source {
    pub(super) stores: Stores,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    pub(super) url: String,
    pub(super) size: u64,
}

impl Source {
    /// The path or URL, for messages and for sorting.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// One range of bytes.
    ///
    /// # Errors
    /// If the store does not answer in time, or the file has changed.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, DataError> {
        self.read_blocks(&self.url, &self.path, range).await
    }

    /// Several ranges of bytes, in order; ranges near each other are fetched together.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, DataError> {
        object_store::coalesce_ranges(ranges, |range| self.read(range), GAP).await
    }

    /// A file that a row names relative to this file's folder. It must be below that folder.
    ///
    /// # Errors
    /// If the name leaves the folder, and as [`Source::read`].
    pub async fn read_beside(&self, name: &str) -> Result<Bytes, DataError> {
        let refused = |reason: &str| DataError::Location { location: name.to_owned(), reason: reason.to_owned() };
        if name.starts_with('/') || name.split('/').any(|segment| segment == "..") || name.contains("://") {
            return Err(refused(
                "a row may only name files below the folder of its Parquet file; or put the bytes into the row",
            ));
        }
        let mut path = self.path.prefix();
        for segment in name.split('/').filter(|segment| !segment.is_empty() && *segment != ".") {
            path = path.join(segment);
        }
        let url = format!("{}/{name}", self.url.rsplit_once('/').map_or("", |(folder, _)| folder));
        let found = bounded(&self.stores, &url, self.store.head(&path)).await?;
        self.read_blocks(&url, &path, 0..found.size).await
    }

    /// Reads a range in blocks, so that a long range over a slow connection does not time out.
    async fn read_blocks(&self, url: &str, path: &Path, range: Range<u64>) -> Result<Bytes, DataError> {
        let blocks = range.clone().step_by(BLOCK as usize).map(|start| start..range.end.min(start + BLOCK));
        let mut blocks = stream::iter(blocks)
            .map(|block| bounded(&self.stores, url, self.store.get_range(path, block)))
            .buffered(BLOCKS_AT_ONCE);
        if range.end.saturating_sub(range.start) <= BLOCK {
            return blocks.next().await.unwrap_or_else(|| Ok(Bytes::new()));
        }
        let mut whole = BytesMut::new();
        while let Some(block) = blocks.next().await {
            whole.extend_from_slice(&block?);
        }
        Ok(whole.freeze())
    }
}

trait Folder {
    fn prefix(&self) -> Path;
}

impl Folder for Path {
    fn prefix(&self) -> Path {
        let mut segments: Vec<_> = self.parts().collect();
        segments.pop();
        segments.into_iter().collect()
    }
}

/// Awaits a request, and turns its failure into a message.
pub(super) async fn bounded<T>(
    stores: &Stores,
    url: &str,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, DataError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unreachable_error(stores, url, &error)),
        Err(_) => Err(DataError::Unreachable {
            url: url.to_owned(),
            reason: format!("no answer within {} s", TIMEOUT.as_secs()),
            remedy: "check the network and the endpoint",
            passing: true,
        }),
    }
}

pub(super) fn unreachable_error(stores: &Stores, url: &str, error: &object_store::Error) -> DataError {
    use object_store::Error;
    let (reason, remedy) = match error {
        Error::NotFound { .. } => ("there is no such file".to_owned(), "correct the path"),
        Error::PermissionDenied { .. } => {
            ("access was denied".to_owned(), "give these credentials the right to read it")
        }
        Error::Unauthenticated { .. } => {
            ("the credentials were not accepted".to_owned(), "set the credentials of this store in the environment")
        }
        other => (innermost(other), "check the address, and that this machine can reach the store"),
    };
    DataError::Unreachable { url: url.to_owned(), reason, remedy, passing: stores.is_transient(error) }
}
