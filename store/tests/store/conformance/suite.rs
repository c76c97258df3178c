//! A suite for every backend that tests what checkpoints depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use antiphon_core::ids::{JobId, Term, Turn};
use antiphon_core::numerics::Numerics;
use antiphon_store::checkpoints::{
    Checkpoint, CheckpointError, CheckpointStore, FORMAT, FileEntry, MANIFEST, Manifest,
};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::{Store, StoreOptions};
use bytes::Bytes;
use object_store::{ObjectStoreExt as _, PutPayload};

const HEAD: &str = "head.safetensors";

/// The checkpoints of a job, in a store that may fail.
pub(crate) fn checkpoints(job: &Store) -> CheckpointStore {
    CheckpointStore::new(job).with_retry(RETRY.clone())
}

pub(crate) static RETRY: RetryPolicy = RetryPolicy::new(Duration::from_secs(60), 1);

pub(crate) fn manifest(turn: u64, files: BTreeMap<String, FileEntry>) -> Manifest {
    Manifest {
        format: FORMAT,
        job: JobId::try_from("digits-1").expect("a job id"),
        term: Term(1),
        turn: Turn(turn),
        epoch: 0,
        specification: serde_json::json!({"name": "digits"}),
        numerics: Numerics::default(),
        files,
        score: Some(0.1 + 0.2),
        fusion_weights: None,
        samples: None,
        state: serde_json::Value::Null,
    }
}

pub(crate) async fn write(store: &CheckpointStore, turn: u64) -> Checkpoint {
    let bytes = Bytes::from(format!("head at {turn}"));
    let entry = store.write_file(Turn(turn), HEAD, bytes).await.expect("the file is written");
    store.complete(&manifest(turn, BTreeMap::from([(HEAD.to_owned(), entry)]))).await.expect("the manifest is written")
}

async fn put(place: &Store, name: &str, text: &'static str) {
    let (objects, path) = (place.objects(), &place.object(name));
    let put = RETRY.run(name, || async move { objects.put(path, PutPayload::from(text)).await });
    put.await.expect("the object is written");
}

/// Every test of the suite, each in its own folder below `root`.
pub(crate) async fn conforms(root: &str, options: &StoreOptions) {
    let root = options.open(root).expect("the store opens");
    a_checkpoint_is_read_as_it_was_written(&root.child("round trip"), options).await;
    a_checkpoint_exists_when_its_manifest_does(&root.child("manifest")).await;
    a_manifest_is_written_once(&root.child("once")).await;
    a_file_is_replaced_until_its_checkpoint_is_complete(&root.child("replaced")).await;
    damage_is_found(&root.child("damage"), options).await;
    the_newest_and_the_best_are_retained(&root.child("keep")).await;
    garbage_is_what_no_manifest_names(&root.child("garbage"), options).await;
    a_missing_checkpoint_is_named(&root.child("nothing"), options).await;
}

async fn a_checkpoint_is_read_as_it_was_written(folder: &Store, options: &StoreOptions) {
    let store = checkpoints(folder);
    let written = write(&store, 12).await;
    for url in [written.url(), folder.url(), store.url()] {
        let read = Checkpoint::open_with(&url, options, &RETRY).await.expect("it opens by its URL");
        assert_eq!(read.manifest(), written.manifest(), "{url}");
        assert_eq!(read.file(HEAD).await.expect("the file is sound"), "head at 12", "{url}");
    }
    assert!(written.url().ends_with("/checkpoints/00000012"), "{}", written.url());
}

async fn a_checkpoint_exists_when_its_manifest_does(folder: &Store) {
    let store = checkpoints(folder);
    assert!(store.newest().await.expect("an empty folder lists").is_none());
    let entry = store.write_file(Turn(3), HEAD, Bytes::from_static(b"file")).await.expect("it is written");
    assert_eq!(store.list().await.expect("it lists"), []);
    let early = manifest(3, BTreeMap::from([(HEAD.to_owned(), entry), ("missing.safetensors".to_owned(), entry)]));
    let error = store.complete(&early).await.expect_err("a file is missing");
    assert!(matches!(error, CheckpointError::Request { doing: "read", .. }), "{error}");
    assert_eq!(store.list().await.expect("it lists"), []);
    write(&store, 3).await;
    assert_eq!(store.list().await.expect("it lists"), [Turn(3)]);
}

async fn a_manifest_is_written_once(folder: &Store) {
    let store = checkpoints(folder);
    let first = write(&store, 5).await;
    store.complete(first.manifest()).await.expect("the same manifest is there");
    let mut other = first.manifest().clone();
    other.term = Term(2);
    let found = store.complete(&other).await.expect("another coordinator has written the same state");
    assert_eq!(found.manifest().term, first.manifest().term);
    other.files.pop_last();
    let error = store.complete(&other).await.expect_err("it is there already");
    assert!(matches!(error, CheckpointError::Exists { .. }), "{error}");
    assert_eq!(store.open(Turn(5)).await.expect("it opens").manifest(), first.manifest());
}

async fn a_file_is_replaced_until_its_checkpoint_is_complete(folder: &Store) {
    let store = checkpoints(folder);
    for text in ["an earlier one", "head at x"] {
        store.write_file(Turn(6), HEAD, Bytes::from(text)).await.expect("it replaces what is there");
    }
    let checkpoint = write(&store, 6).await;
    let entry = checkpoint.manifest().files[HEAD];
    let again = store.write_file(Turn(6), HEAD, Bytes::from_static(b"head at 6")).await;
    assert_eq!(again.expect("it is there"), entry);
    for (name, text) in [(HEAD, "head at x"), ("new", "head at 6")] {
        let error = store.write_file(Turn(6), name, Bytes::from(text)).await.expect_err("the checkpoint is complete");
        assert!(matches!(&error, CheckpointError::Superseded { url } if url.ends_with(name)), "{error}");
    }
    assert_eq!(checkpoint.file(HEAD).await.expect("the file is sound"), "head at 6");
}

async fn damage_is_found(folder: &Store, options: &StoreOptions) {
    let store = checkpoints(folder);
    let checkpoint = write(&store, 7).await;
    let place = options.open(&checkpoint.url()).expect("its own URL opens");
    let damaged = async |what: &str| {
        let error = checkpoint.file(HEAD).await.expect_err(what);
        assert!(matches!(&error, CheckpointError::Damaged { what: found, .. } if *found == what), "{error}");
        let error = checkpoint.file("other").await.expect_err("no such file");
        assert!(matches!(error, CheckpointError::NoFile { .. }), "{error}");
    };
    put(&place, HEAD, "head at 8").await;
    damaged("SHA-256").await;
    put(&place, HEAD, "head").await;
    damaged("size").await;
    for text in ["{", "{}", r#"{"format": 3}"#, r#"{"format": 2, "job": "x"}"#] {
        put(&place, MANIFEST, text).await;
        let error = store.open(Turn(7)).await.expect_err(text);
        assert!(matches!(error, CheckpointError::Manifest { .. }), "{error}");
    }
    put(&place, MANIFEST, r#"{"format": 1, "job": "x", "parts": {}}"#).await;
    let error = store.open(Turn(7)).await.expect_err("it is of an older version").to_string();
    let expected = "its format is 1, but this version reads format 2; use the version of antiphon that wrote it";
    assert!(error.ends_with(expected), "{error}");
}

async fn the_newest_and_the_best_are_retained(folder: &Store) {
    let store = checkpoints(folder);
    for turn in [10, 20, 30, 40] {
        write(&store, turn).await;
    }
    assert_eq!(store.retain(2, Some(Turn(10)), &BTreeSet::new()).await.expect("it clears up"), [Turn(20)]);
    assert_eq!(store.list().await.expect("it lists"), [Turn(10), Turn(30), Turn(40)]);
    assert_eq!(store.retain(2, Some(Turn(10)), &BTreeSet::new()).await.expect("again changes nothing"), []);
    assert_eq!(store.retain(0, None, &BTreeSet::new()).await.expect("it clears up"), [Turn(10), Turn(30)]);
    let newest = store.newest().await.expect("it lists").expect("the last is always kept");
    assert_eq!(newest.file(HEAD).await.expect("the file is sound"), "head at 40");
}

async fn garbage_is_what_no_manifest_names(folder: &Store, options: &StoreOptions) {
    let store = checkpoints(folder);
    put(&folder.child("checkpoints"), "notes.txt", "not a checkpoint's").await;
    put(folder, "job.json", "beside the checkpoints").await;
    for turn in [1, 2, 9] {
        store.write_file(Turn(turn), HEAD, Bytes::from_static(b"half")).await.expect("it is written");
    }
    assert_eq!(store.collect_garbage(&BTreeSet::new()).await.expect("nothing is complete"), 0);
    let checkpoint = write(&store, 5).await;
    put(&options.open(&checkpoint.url()).expect("it opens"), "stranger", "unnamed").await;
    assert_eq!(store.collect_garbage(&BTreeSet::from([Turn(2)])).await.expect("1 and the stranger go"), 2);
    assert_eq!(store.collect_garbage(&BTreeSet::new()).await.expect("2 goes"), 1);
    assert_eq!(checkpoint.file(HEAD).await.expect("the file is there"), "head at 5");
    write(&store, 9).await;
    for (place, name) in [(folder.child("checkpoints"), "notes.txt"), (folder.clone(), "job.json")] {
        let (objects, path) = (place.objects(), &place.object(name));
        let found = RETRY.run(name, || async move { objects.head(path).await });
        found.await.expect("what is not a checkpoint's is left alone");
    }
}

async fn a_missing_checkpoint_is_named(folder: &Store, options: &StoreOptions) {
    let error =
        Checkpoint::open_with(&folder.url(), options, &RETRY).await.expect_err("the folder is empty").to_string();
    let expected = format!("there is no complete checkpoint in `{}`: no folder in it holds a {MANIFEST}", folder.url());
    assert_eq!(error, expected);
}
