//! One suite, every backend: what the checkpoints rest on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use antiphon_core::ids::{JobId, Term, Turn};
use antiphon_core::numerics::Numerics;
use antiphon_store::checkpoints::{
    Checkpoint, CheckpointError, CheckpointStore, FORMAT, MANIFEST, Manifest, PartEntry,
};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::{Store, StoreOptions};
use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutPayload};

const HEAD: &str = "head.safetensors";

/// The checkpoints of a job, in a store that may be in trouble.
pub(crate) fn checkpoints(job: &Store) -> CheckpointStore {
    CheckpointStore::new(job).with_retry(RETRY.clone())
}

pub(crate) static RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(60), 1);

pub(crate) fn manifest(turn: u64, parts: BTreeMap<String, PartEntry>) -> Manifest {
    Manifest {
        format: FORMAT,
        job: JobId::try_from("digits-1").expect("a job id"),
        term: Term(1),
        turn: Turn(turn),
        epoch: 0,
        specification: serde_json::json!({"name": "digits"}),
        numerics: Numerics::default(),
        parts,
        score: Some(0.1 + 0.2),
        fusion_weights: None,
        samples: None,
        state: serde_json::Value::Null,
    }
}

pub(crate) async fn write(store: &CheckpointStore, turn: u64) -> Checkpoint {
    let bytes = Bytes::from(format!("head at {turn}"));
    let entry = store.write_part(Turn(turn), HEAD, bytes).await.expect("the part is written");
    store.complete(&manifest(turn, BTreeMap::from([(HEAD.to_owned(), entry)]))).await.expect("the manifest is written")
}

async fn put(place: &Store, name: &str, text: &'static str) {
    let (objects, path) = (place.objects(), &place.object(name));
    let put = RETRY.run(name, || async move { objects.put(path, PutPayload::from(text)).await });
    put.await.expect("the object is written");
}

/// Every test of the suite, each in a folder of its own below `root`.
pub(crate) async fn conforms(root: &str, options: &StoreOptions) {
    let root = options.open(root).expect("the store opens");
    a_checkpoint_is_read_as_it_was_written(&root.child("round trip"), options).await;
    a_checkpoint_exists_when_its_manifest_does(&root.child("manifest")).await;
    a_manifest_is_written_once(&root.child("once")).await;
    a_part_is_replaced_until_its_checkpoint_is_complete(&root.child("replaced")).await;
    damage_is_found(&root.child("damage"), options).await;
    the_last_and_the_best_are_kept(&root.child("keep")).await;
    garbage_is_what_no_manifest_names(&root.child("garbage"), options).await;
    what_is_not_there_is_named(&root.child("nothing"), options).await;
}

async fn a_checkpoint_is_read_as_it_was_written(folder: &Store, options: &StoreOptions) {
    let store = checkpoints(folder);
    let written = write(&store, 12).await;
    for url in [written.url(), folder.url(), store.url()] {
        let read = Checkpoint::open_with(&url, options, &RETRY).await.expect("it opens by its URL");
        assert_eq!(read.manifest(), written.manifest(), "{url}");
        assert_eq!(read.part(HEAD).await.expect("the part is sound"), "head at 12", "{url}");
    }
    assert!(written.url().ends_with("/checkpoints/00000012"), "{}", written.url());
}

async fn a_checkpoint_exists_when_its_manifest_does(folder: &Store) {
    let store = checkpoints(folder);
    assert!(store.newest().await.expect("an empty folder lists").is_none());
    let entry = store.write_part(Turn(3), HEAD, Bytes::from_static(b"part")).await.expect("it is written");
    assert_eq!(store.list().await.expect("it lists"), []);
    let early = manifest(3, BTreeMap::from([(HEAD.to_owned(), entry), ("missing.safetensors".to_owned(), entry)]));
    let error = store.complete(&early).await.expect_err("a part is missing");
    assert!(matches!(error, CheckpointError::Request { doing: "read", .. }), "{error}");
    assert_eq!(store.list().await.expect("it lists"), []);
    write(&store, 3).await;
    assert_eq!(store.list().await.expect("it lists"), [Turn(3)]);
}

async fn a_manifest_is_written_once(folder: &Store) {
    let store = checkpoints(folder);
    let first = write(&store, 5).await;
    store.complete(first.manifest()).await.expect("the same again is as good as once");
    let mut other = first.manifest().clone();
    other.term = Term(2);
    let found = store.complete(&other).await.expect("another coordinator has written the same state");
    assert_eq!(found.manifest().term, first.manifest().term);
    other.parts.pop_last();
    let error = store.complete(&other).await.expect_err("it is there already");
    assert!(matches!(error, CheckpointError::Exists { .. }), "{error}");
    assert_eq!(store.open(Turn(5)).await.expect("it opens").manifest(), first.manifest());
}

async fn a_part_is_replaced_until_its_checkpoint_is_complete(folder: &Store) {
    let store = checkpoints(folder);
    for text in ["an earlier one", "head at x"] {
        store.write_part(Turn(6), HEAD, Bytes::from(text)).await.expect("nobody needs what is there");
    }
    let checkpoint = write(&store, 6).await;
    let entry = checkpoint.manifest().parts[HEAD];
    let again = store.write_part(Turn(6), HEAD, Bytes::from_static(b"head at 6")).await;
    assert_eq!(again.expect("it is there"), entry);
    for (name, text) in [(HEAD, "head at x"), ("new", "head at 6")] {
        let error = store.write_part(Turn(6), name, Bytes::from(text)).await.expect_err("the checkpoint is complete");
        assert!(matches!(&error, CheckpointError::Superseded { url } if url.ends_with(name)), "{error}");
    }
    assert_eq!(checkpoint.part(HEAD).await.expect("the part is sound"), "head at 6");
}

async fn damage_is_found(folder: &Store, options: &StoreOptions) {
    let store = checkpoints(folder);
    let checkpoint = write(&store, 7).await;
    let place = options.open(&checkpoint.url()).expect("its own URL opens");
    let refused = async |what: &str| {
        let error = checkpoint.part(HEAD).await.expect_err(what);
        assert!(matches!(&error, CheckpointError::Damaged { what: found, .. } if *found == what), "{error}");
        let error = checkpoint.part("other").await.expect_err("no such part");
        assert!(matches!(error, CheckpointError::NoPart { .. }), "{error}");
    };
    put(&place, HEAD, "head at 8").await;
    refused("SHA-256").await;
    put(&place, HEAD, "head").await;
    refused("size").await;
    for text in ["{", "{}", r#"{"format": 2}"#, r#"{"format": 1, "job": "x"}"#] {
        put(&place, MANIFEST, text).await;
        let error = store.open(Turn(7)).await.expect_err(text);
        assert!(matches!(error, CheckpointError::Manifest { .. }), "{error}");
    }
}

async fn the_last_and_the_best_are_kept(folder: &Store) {
    let store = checkpoints(folder);
    for turn in [10, 20, 30, 40] {
        write(&store, turn).await;
    }
    assert_eq!(store.retain(2, Some(Turn(10)), &BTreeSet::new()).await.expect("it clears up"), [Turn(20)]);
    assert_eq!(store.list().await.expect("it lists"), [Turn(10), Turn(30), Turn(40)]);
    assert_eq!(store.retain(2, Some(Turn(10)), &BTreeSet::new()).await.expect("again changes nothing"), []);
    assert_eq!(store.retain(0, None, &BTreeSet::new()).await.expect("it clears up"), [Turn(10), Turn(30)]);
    let newest = store.newest().await.expect("it lists").expect("the last is always kept");
    assert_eq!(newest.part(HEAD).await.expect("the part is sound"), "head at 40");
}

async fn garbage_is_what_no_manifest_names(folder: &Store, options: &StoreOptions) {
    let store = checkpoints(folder);
    put(&folder.child("checkpoints"), "notes.txt", "not a checkpoint's").await;
    put(folder, "job.json", "beside the checkpoints").await;
    for turn in [1, 2, 9] {
        store.write_part(Turn(turn), HEAD, Bytes::from_static(b"half")).await.expect("it is written");
    }
    assert_eq!(store.collect_garbage(&BTreeSet::new()).await.expect("nothing is complete"), 0);
    let checkpoint = write(&store, 5).await;
    put(&options.open(&checkpoint.url()).expect("it opens"), "stranger", "unnamed").await;
    assert_eq!(store.collect_garbage(&BTreeSet::from([Turn(2)])).await.expect("1 and the stranger go"), 2);
    assert_eq!(store.collect_garbage(&BTreeSet::new()).await.expect("2 goes"), 1);
    assert_eq!(checkpoint.part(HEAD).await.expect("the part is there"), "head at 5");
    write(&store, 9).await;
    for (place, name) in [(folder.child("checkpoints"), "notes.txt"), (folder.clone(), "job.json")] {
        let (objects, path) = (place.objects(), &place.object(name));
        let found = RETRY.run(name, || async move { objects.head(path).await });
        found.await.expect("what is not a checkpoint's is left alone");
    }
}

async fn what_is_not_there_is_named(folder: &Store, options: &StoreOptions) {
    let error =
        Checkpoint::open_with(&folder.url(), options, &RETRY).await.expect_err("the folder is empty").to_string();
    let expected = format!("there is no complete checkpoint in `{}`: no folder in it holds a {MANIFEST}", folder.url());
    assert_eq!(error, expected);
}
