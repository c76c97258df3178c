//! The conformance suite over a local folder and memory; `tests/s3` runs it over S3.

mod suite;

use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::storage::Store;
use suite::{conforms, write};

#[tokio::test]
async fn a_local_folder_conforms() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    conforms(folder.path().to_str().expect("the scratch folder's path is text")).await;
}

#[tokio::test]
async fn memory_conforms() {
    conforms("memory://conformance/runs").await;
}

#[tokio::test]
async fn memory_is_shared_by_name() {
    write(&CheckpointStore::new(&Store::open("memory://one/j").expect("it opens")), 1).await;
    let newest = async |url: &str| CheckpointStore::new(&Store::open(url).expect("it opens")).newest().await;
    assert!(newest("memory://one/j").await.expect("it lists").is_some());
    assert!(newest("memory://other/j").await.expect("it lists").is_none());
}
