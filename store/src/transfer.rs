//! Objects on their way to and from a store, in pieces of bounded size, a few of them at once.
//!
//! A small object is one request. A larger one is uploaded in pieces, which the store puts together at the end: an upload that
//! is given up, or whose future is dropped, leaves nothing behind, unless the process is killed or the store cannot be told. What
//! is left then goes with the garbage; see [`crate::uploads`].

use antiphon_core::digest::{Hasher, Sha256Hash};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, Result};

use crate::uploads::Upload;

/// Bytes of a piece, which is also the largest object that is uploaded by one request. Stores take no more than 10,000 pieces
/// and, but for the last, none below 5 MiB.
const PIECE: usize = 16 << 20;
/// Pieces on the way at the same time.
const AT_ONCE: usize = 4;
/// Bytes that are hashed before others on this thread have their turn.
const HASHED_AT_ONCE: usize = 1 << 20;

/// Whether an object is uploaded by one request.
pub(crate) fn is_one_piece(bytes: &Bytes) -> bool {
    bytes.len() <= PIECE
}

/// Sends an object in pieces; they are put together when the upload is completed.
pub(crate) async fn send(upload: &mut Upload, bytes: &Bytes) -> Result<()> {
    let pieces = (0..bytes.len()).step_by(PIECE).map(|at| bytes.slice(at..bytes.len().min(at + PIECE)));
    let sent = stream::iter(pieces).map(|piece| upload.put_piece(piece.into()));
    sent.buffer_unordered(AT_ONCE).try_collect::<()>().await
}

/// Reads an object of `size` bytes, and hashes it as it comes; it is in memory once, and a few pieces besides.
///
/// # Errors
/// The store's, also where the object is shorter.
pub(crate) async fn download(objects: &dyn ObjectStore, path: &Path, size: u64) -> Result<(Bytes, Sha256Hash)> {
    let ranges = (0..size).step_by(PIECE).map(|at| at..size.min(at + PIECE as u64));
    let mut pieces = stream::iter(ranges).map(|range| objects.get_range(path, range)).buffered(AT_ONCE);
    // An object of one piece is handed over as it came.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut hasher = Hasher::default();
    while let Some(piece) = pieces.try_next().await? {
        hash_into(&mut hasher, &piece).await;
        if piece.len() as u64 == size {
            first = piece;
        } else {
            whole.reserve(usize::try_from(size).unwrap_or(usize::MAX) - whole.len());
            whole.extend_from_slice(&piece);
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
    for piece in bytes.chunks(HASHED_AT_ONCE) {
        hasher.update(piece);
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
    async fn objects_of_any_number_of_pieces_come_back_with_their_hash() {
        let folder = Store::open("memory://transfer/a").expect("it opens");
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let bytes: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
            if is_one_piece(&bytes) {
                let put = folder.objects().put(&folder.object("b"), bytes.clone().into()).await;
                put.expect("it is written");
            } else {
                let mut upload = Upload::begin(&folder, "b", &RetryPolicy::none()).await.expect("it begins");
                send(&mut upload, &bytes).await.expect("it is sent");
                upload.complete().await.expect("it is complete");
            }
            let read = download(folder.objects().as_ref(), &folder.object("b"), length as u64).await;
            let (read, hashed) = read.expect("it is read");
            assert!(read == bytes, "{length} bytes came back otherwise");
            assert_eq!((hashed, hash(&bytes).await), (sha256(&bytes), sha256(&bytes)), "{length}");
        }
    }
}
