//! The conformance suite with a local folder and memory, with and without faults; `s3` beside it runs it with S3.

pub(crate) mod interrupted;
pub(crate) mod suite;

use self::suite::{conforms, write};
use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::storage::{Store, StoreOptions};

#[tokio::test]
async fn a_local_folder_conforms() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    conforms(folder.path().to_str().expect("the scratch folder's path is text"), &StoreOptions::default()).await;
}

#[tokio::test]
async fn memory_conforms() {
    conforms("memory://conformance/runs", &StoreOptions::default()).await;
}

#[tokio::test]
async fn stores_that_fail_conform() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let local = folder.path().to_str().expect("the scratch folder's path is text");
    for seed in 0..3 {
        let faults =
            format!("seed={seed},errors=0.1,lost=0.1,slow=0.1,slow_ms=5,truncated=0.1").parse().expect("faults");
        for root in [&format!("memory://failing/{seed}"), &format!("{local}/{seed}")] {
            conforms(root, &StoreOptions { faults: Some(faults), ..StoreOptions::default() }).await;
        }
    }
}

#[tokio::test]
async fn a_writer_dropped_at_any_point_leaves_no_garbage() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let local = folder.path().to_str().expect("the scratch folder's path is text");
    for root in ["memory://interrupted", local] {
        interrupted::leaves_no_garbage(&Store::open(root).expect("it opens")).await;
    }
}

#[tokio::test]
async fn memory_is_shared_by_name() {
    write(&CheckpointStore::new(&Store::open("memory://one/j").expect("it opens")), 1).await;
    let newest = async |url: &str| CheckpointStore::new(&Store::open(url).expect("it opens")).newest().await;
    assert!(newest("memory://one/j").await.expect("it lists").is_some());
    assert!(newest("memory://other/j").await.expect("it lists").is_none());
}
