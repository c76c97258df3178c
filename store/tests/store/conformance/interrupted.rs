//! Checkpoints whose writer is dropped before they are complete.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::Poll;

use antiphon_core::ids::Turn;
use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::storage::Store;
use bytes::Bytes;
use futures::{TryStreamExt as _, future};
use object_store::ObjectStore as _;

use super::suite::{RETRY, checkpoints, manifest, write};

/// A file whose upload takes three chunks.
const LARGE: usize = (33 << 20) + 5;
/// The number of polls before a writer is dropped: ten different points, and one at which it is done.
const POINTS: [u64; 11] = [1, 2, 3, 4, 5, 7, 9, 12, 16, 25, u64::MAX];

/// Polls `work` this many times, or until it is done.
async fn interrupted<T>(work: impl Future<Output = T>, polls: u64) -> Option<T> {
    let (mut work, mut polled) = (pin!(work), 0);
    future::poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

async fn write_large(store: &CheckpointStore, turn: u64, content: &Bytes) {
    let mut files = BTreeMap::new();
    for (name, bytes) in [("head.safetensors", content.slice(..100)), ("encoder-a.safetensors", content.clone())] {
        let entry = store.write_file(Turn(turn), name, bytes).await.expect("the file is written");
        files.insert(name.to_owned(), entry);
    }
    store.complete(&manifest(turn, files)).await.expect("the manifest is written");
}

/// All objects below a folder, by the last two names of their paths.
async fn objects(folder: &Store) -> BTreeSet<String> {
    let listed =
        RETRY.run("list", || async move { folder.objects().list(Some(folder.prefix())).try_collect::<Vec<_>>().await });
    let listed = listed.await.expect("it lists");
    let ends = listed.iter().map(|object| {
        let names: Vec<&str> = object.location.as_ref().rsplit('/').take(2).collect();
        format!("{}/{}", names[1], names[0])
    });
    ends.collect()
}

/// Writes one checkpoint after the other and drops the writer at a different point each time.
pub(crate) async fn leaves_no_garbage(root: &Store) {
    let (job, store) = (root.child("interrupted"), checkpoints(&root.child("interrupted")));
    let content: Bytes = (0..LARGE).map(|at| (at % 241) as u8).collect();
    write(&store, 1).await;
    let (mut newest, mut given_up) = (1, 0);
    for (turn, polls) in (2..).zip(POINTS) {
        match interrupted(write_large(&store, turn, &content), polls).await {
            Some(()) => newest = turn,
            None => given_up += 1,
        }
        let found = store.newest().await.expect("it lists").expect("there is one");
        assert!(found.manifest().turn.0 >= newest, "what was complete stays");
        // A manifest may exist although its writer did not receive the answer.
        newest = found.manifest().turn.0;
        for name in found.manifest().files.keys() {
            found.file(name).await.expect("what a manifest names is sound");
        }
    }
    assert!(given_up >= 3, "{given_up} writers were given up before they were done");
    store.retain(1, None, &BTreeSet::new()).await.expect("it clears up");
    store.collect_garbage(&BTreeSet::new()).await.expect("it clears up");
    let last = |name: &str| format!("{newest:08}/{name}");
    let names = ["encoder-a.safetensors", "head.safetensors", "manifest.json"];
    assert_eq!(objects(&job).await, names.map(last).into());
}
