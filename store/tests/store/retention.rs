//! Property tests of which files are retained and removed, with random folders.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::ids::{JobId, Term, Turn};
use antiphon_core::numerics::Numerics;
use antiphon_core::rng::{self, Stream};
use antiphon_store::checkpoints::{CheckpointStore, FORMAT, Manifest};
use antiphon_store::storage::Store;
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};

const CASES: u64 = 300;
/// The range of turns. It is small, so that turns collide.
const TURNS: u64 = 12;
const NAMES: [&str; 3] = ["head.safetensors", "projector.safetensors", "encoder-a.safetensors"];

/// The content of a job's folder: turn and name of every object of a checkpoint.
type Objects = BTreeSet<(Turn, String)>;

/// A random folder that a job could leave behind.
struct Folder {
    job: Store,
    store: CheckpointStore,
    /// The files that each complete checkpoint's manifest names.
    complete: BTreeMap<Turn, BTreeSet<String>>,
}

impl Folder {
    async fn drawn(case: u64, stream: &mut Stream) -> Self {
        let job = Store::open(&format!("memory://retention/{case}")).expect("it opens");
        let store = CheckpointStore::new(&job);
        let mut complete = BTreeMap::new();
        for turn in (0..TURNS).map(Turn) {
            let named = some_of(stream, NAMES);
            let written = some_of(stream, NAMES);
            if chance(stream, 0.5) {
                for name in &written {
                    write(&store, turn, name).await;
                }
            }
            if chance(stream, 0.4) {
                let mut files = BTreeMap::new();
                for name in named {
                    files.insert(name.to_owned(), write(&store, turn, name).await);
                }
                let names = files.keys().cloned().collect();
                store.complete(&manifest(turn, files)).await.expect("it is complete");
                complete.insert(turn, names);
            }
        }
        for place in [job.child("checkpoints"), job.child("journal"), job.child("checkpoints").child("notes")] {
            place.objects().put(&place.object("stranger"), PutPayload::from("x")).await.expect("it is written");
        }
        Self { job, store, complete }
    }

    async fn objects(&self) -> Objects {
        let listed = self.job.objects().list(Some(self.job.prefix())).try_collect::<Vec<_>>().await.expect("it lists");
        let paths = listed.iter().map(|object| object.location.as_ref().rsplit('/').take(2).collect::<Vec<_>>());
        let of_turn = paths.filter_map(|path| Some((Turn(path[1].parse().ok()?), path[0].to_owned())));
        let objects: Objects = of_turn.collect();
        assert_eq!(listed.len(), objects.len() + 3, "other objects are not touched");
        objects
    }
}

fn manifest(turn: Turn, files: BTreeMap<String, antiphon_store::checkpoints::FileEntry>) -> Manifest {
    Manifest {
        format: FORMAT,
        job: JobId::try_from("digits-1").expect("a job id"),
        term: Term(1),
        turn,
        epoch: 0,
        specification: serde_json::Value::Null,
        numerics: Numerics::default(),
        files,
        score: None,
        fusion_weights: None,
        samples: None,
        state: serde_json::Value::Null,
    }
}

async fn write(store: &CheckpointStore, turn: Turn, name: &str) -> antiphon_store::checkpoints::FileEntry {
    store.write_file(turn, name, Bytes::from(format!("{name} at {turn}"))).await.expect("it is written")
}

fn chance(stream: &mut Stream, probability: f64) -> bool {
    rng::uniform(stream) < probability
}

fn some_of<T>(stream: &mut Stream, all: impl IntoIterator<Item = T>) -> Vec<T> {
    all.into_iter().filter(|_| chance(stream, 0.5)).collect()
}

fn drawn(case: u64, what: &str) -> Stream {
    rng::stream(case, &["retention".into(), what.into()])
}

#[tokio::test]
async fn the_newest_the_best_and_those_in_use_are_retained() {
    for case in 0..CASES {
        let stream = &mut drawn(case, "retain");
        let folder = Folder::drawn(2 * case, stream).await;
        let keep = rng::below(stream, 4) as usize;
        let best = chance(stream, 0.5).then(|| Turn(rng::below(stream, TURNS)));
        let in_use: BTreeSet<Turn> = some_of(stream, (0..TURNS).map(Turn)).into_iter().collect();
        let before = folder.objects().await;
        let removed: BTreeSet<Turn> =
            folder.store.retain(keep, best, &in_use).await.expect("it clears up").into_iter().collect();

        let newest: BTreeSet<Turn> = folder.complete.keys().rev().take(keep.max(1)).copied().collect();
        let stays = |turn: &Turn| newest.contains(turn) || in_use.contains(turn) || best == Some(*turn);
        let expected: BTreeSet<Turn> = folder.complete.keys().filter(|turn| !stays(turn)).copied().collect();
        assert_eq!(removed, expected, "case {case}: keep {keep}, best {best:?}, in use {in_use:?}");
        let after = folder.objects().await;
        let untouched: Objects = before.into_iter().filter(|(turn, _)| !removed.contains(turn)).collect();
        assert_eq!(after, untouched, "case {case}");
        for turn in folder.complete.keys().filter(|turn| !removed.contains(turn)) {
            let checkpoint = folder.store.open(*turn).await.expect("it is complete");
            for name in checkpoint.manifest().files.keys() {
                checkpoint.file(name).await.expect("it is sound");
            }
        }
        assert_eq!(folder.store.retain(keep, best, &in_use).await.expect("again"), [], "case {case}: again");
    }
}

#[tokio::test]
async fn garbage_is_what_no_manifest_names_and_no_process_is_writing() {
    for case in 0..CASES {
        let stream = &mut drawn(case, "garbage");
        let folder = Folder::drawn(2 * case + 1, stream).await;
        let in_progress: BTreeSet<Turn> = some_of(stream, (0..TURNS).map(Turn)).into_iter().collect();
        let before = folder.objects().await;
        let count = folder.store.collect_garbage(&in_progress).await.expect("it clears up");

        let newest = folder.complete.keys().next_back();
        let stays = |(turn, name): &(Turn, String)| {
            let named = folder.complete.get(turn).is_some_and(|files| name == "manifest.json" || files.contains(name));
            named || in_progress.contains(turn) || newest.is_none_or(|newest| turn > newest)
        };
        let expected: Objects = before.iter().filter(|object| stays(object)).cloned().collect();
        assert_eq!(folder.objects().await, expected, "case {case}: in progress {in_progress:?}");
        assert_eq!(count, before.len() - expected.len(), "case {case}");
        assert_eq!(folder.store.collect_garbage(&in_progress).await.expect("again"), 0, "case {case}: again");
    }
}

#[tokio::test]
async fn files_that_a_killed_process_was_writing_are_removed() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let store = CheckpointStore::new(&Store::open(folder.path().to_str().expect("text")).expect("it opens"));
    let files = BTreeMap::from([(NAMES[0].to_owned(), write(&store, Turn(5), NAMES[0]).await)]);
    store.complete(&manifest(Turn(5), files)).await.expect("it is complete");
    let place = |turn: u64, name: &str| folder.path().join(format!("checkpoints/{turn:08}/{name}"));
    let files = [(2, "a.safetensors#1"), (3, "b.safetensors#12"), (5, "manifest.json#1"), (9, "c.safetensors#1")];
    for (turn, name) in files {
        std::fs::create_dir_all(place(turn, "").as_path()).expect("a folder");
        std::fs::write(place(turn, name), "half").expect("a file");
    }
    let left = || files.into_iter().filter(|(turn, name)| place(*turn, name).exists()).map(|(turn, _)| turn);
    assert_eq!(store.collect_garbage(&BTreeSet::from([Turn(3)])).await.expect("it clears up"), 2);
    assert_eq!(left().collect::<Vec<_>>(), [3, 9]);
    assert!(!place(2, "").exists(), "a folder goes with its last file");
    assert_eq!(store.collect_garbage(&BTreeSet::new()).await.expect("it clears up"), 1);
    assert_eq!(left().collect::<Vec<_>>(), [9]);
    store.open(Turn(5)).await.expect("what is complete stays").file(NAMES[0]).await.expect("and sound");
}
