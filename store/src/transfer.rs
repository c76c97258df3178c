//! Uploads and downloads in chunks of bounded size, several at a time.
//!
//! A small object is one request. A larger one is a multipart upload in chunks, which the store joins at the end. An
//! upload that is aborted, or whose future is dropped, leaves nothing behind, unless the process is killed or the store
//! does not answer. Garbage collection then removes the rest; see [`crate::uploads`].

use antiphon_core::digest::{Hasher, Sha256Hash};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, Result};

use crate::uploads::Upload;

/// The size of a chunk, and of the largest object that is uploaded in one request, in bytes. Stores accept at most
/// 10,000 chunks, of at least 5 MiB each except the last.
const CHUNK: usize = 16 << 20;
/// Chunks in transfer at the same time.
const AT_ONCE: usize = 4;
/// Bytes that are hashed before other tasks of this thread can run.
const HASHED_AT_ONCE: usize = 1 << 20;

/// Whether an object is uploaded in one request.
pub(crate) fn is_one_request(bytes: &Bytes) -> bool {
    bytes.len() <= CHUNK
}

/// Sends an object in chunks; the store joins them when the upload is completed.
pub(crate) async fn send(upload: &mut Upload, bytes: &Bytes) -> Result<()> {
    let chunks = (0..bytes.len()).step_by(CHUNK).map(|at| bytes.slice(at..bytes.len().min(at + CHUNK)));
    let sent = stream::iter(chunks).map(|chunk| upload.put_chunk(chunk.into()));
    sent.buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Reads an object of `size` bytes, and hashes it as it arrives. It needs memory for the object and a few chunks.
///
/// # Errors
/// The store's error, or an error if the object is shorter.
pub(crate) async fn download(objects: &dyn ObjectStore, path: &Path, size: u64) -> Result<(Bytes, Sha256Hash)> {
    let ranges = (0..size).step_by(CHUNK).map(|at| at..size.min(at + CHUNK as u64));
    let mut chunks = stream::iter(ranges).map(|range| objects.get_range(path, range)).buffered(AT_ONCE);
    // An object of one chunk is not copied.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut hasher = Hasher::default();
    while let Some(chunk) = chunks.try_next().await? {
        hash_into(&mut hasher, &chunk).await;
        if chunk.len() as u64 == size {
            first = chunk;
        } else {
            whole.reserve(usize::try_from(size).unwrap_or(usize::MAX) - whole.len());
            whole.extend_from_slice(&chunk);
        }
    }
    let bytes = if whole.is_empty() { first } else { whole.freeze() };
    Ok((bytes, hasher.finish()))
}

/// The SHA-256 of an object.
pub(crate) async fn hash(bytes: &[u8]) -> Sha256Hash {
    let mut hasher = Hasher::default();
    hash_into(&mut hasher, bytes).await;
    hasher.finish()
}

async fn hash_into(hasher: &mut Hasher, bytes: &[u8]) {
    for chunk in bytes.chunks(HASHED_AT_ONCE) {
        hasher.update(chunk);
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::RetryPolicy;
    use crate::storage::Store;
    use antiphon_core::digest::sha256;

    #[tokio::test]
    async fn objects_of_any_number_of_chunks_are_read_with_their_hash() {
        let folder = Store::open("memory://transfer/a").expect("it opens");
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7] {
            let bytes: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
            if is_one_request(&bytes) {
                let put = folder.objects().put(&folder.object("b"), bytes.clone().into()).await;
                put.expect("it is written");
            } else {
                let mut upload = Upload::begin(&folder, "b", &RetryPolicy::none()).await.expect("it begins");
                send(&mut upload, &bytes).await.expect("it is sent");
                upload.complete().await.expect("it is complete");
            }
            let read = download(folder.objects().as_ref(), &folder.object("b"), length as u64).await;
            let (read, hashed) = read.expect("it is read");
            assert!(read == bytes, "{length} bytes are not the same");
            assert_eq!((hashed, hash(&bytes).await), (sha256(&bytes), sha256(&bytes)), "{length}");
        }
    }
}
