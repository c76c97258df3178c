//! What writes a checkpoint beside the job's task: the head's files, the manifest, and the removal of what is not
//! needed any more.

use std::collections::BTreeSet;
use std::time::Duration;

use antiphon_core::files::{HEAD, HEAD_STATE, PROJECTOR};
use antiphon_core::head::{HeadFiles, HeadSnapshot, NamedTensor};
use antiphon_core::ids::Turn;
use antiphon_store::checkpoints::{CheckpointError, CheckpointStore, FileEntry, Manifest};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::tensors::{self, Array, Arrays, TensorsError};
use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::super::error::SaveError;
use super::super::resume::Saved;
use super::super::store_errors::StoreErrors;
use crate::journal::{Journal, JournalError};

/// How long the journal may take a write before the job's status says so.
const SLOW_JOURNAL: Duration = Duration::from_secs(5);

/// Where a checkpoint is written, and what decides whether it may be.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) store: CheckpointStore,
    pub(super) journal: Journal,
    pub(super) errors: StoreErrors,
}

/// Which checkpoints are retained.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) newest: usize,
    pub(super) best: Option<Turn>,
    /// A worker may be loading its encoder from a checkpoint that is old by now.
    pub(super) in_use: BTreeSet<Turn>,
}

/// Encodes and uploads the files of the head.
pub(super) async fn write_head(
    store: CheckpointStore,
    turn: Turn,
    snapshot: HeadSnapshot<f32>,
) -> Result<Vec<(String, FileEntry)>, SaveError> {
    let files = tokio::task::spawn_blocking(move || encode_head(snapshot.into_files())).await??;
    let mut entries = Vec::new();
    for (name, bytes) in files {
        let entry = store.write_file(turn, &name, bytes).await?;
        entries.push((name, entry));
    }
    Ok(entries)
}

fn encode_head(HeadFiles { head, state, projector }: HeadFiles<f32>) -> Result<Vec<(String, Bytes)>, TensorsError> {
    let named = [(HEAD, head), (HEAD_STATE, state), (PROJECTOR, projector)];
    named
        .into_iter()
        .map(|(name, file)| {
            let array = |tensor: NamedTensor<f32>| (tensor.name, Array { shape: tensor.shape, data: tensor.data });
            let arrays: Arrays = file.tensors.into_iter().map(array).collect();
            Ok((name.to_owned(), tensors::encode(name, &arrays, &file.note)?))
        })
        .collect()
}

/// Waits for the head's files and writes the manifest, which makes the checkpoint exist; then removes old checkpoints.
pub(super) async fn write_manifest(
    Target { store, journal, errors }: &Target,
    mut manifest: Manifest,
    head: AbortOnDropHandle<Result<Vec<(String, FileEntry)>, SaveError>>,
    keep: Keep,
) -> Result<Saved, SaveError> {
    manifest.files.extend(head.await??);
    // A coordinator that was fenced while it was stalled must not complete a checkpoint of its successor's, nor clean
    // up after it.
    wait_for_leadership(journal, errors).await?;
    let checkpoint = store.complete(&manifest).await?;
    wait_for_leadership(journal, errors).await?;
    // The checkpoint exists; that an old one could not be removed does not undo it.
    if let Err(error) = store.retain(keep.newest, keep.best, &keep.in_use).await {
        warn!(%error, "old checkpoints of the job were not removed");
    }
    report_removed(store.collect_garbage(&BTreeSet::new()).await);
    Ok(Saved::new(&manifest, checkpoint.url()))
}

/// Waits until it is sure that this coordinator is the leader, however long the store takes, and notes that it waits.
async fn wait_for_leadership(journal: &Journal, errors: &StoreErrors) -> Result<(), JournalError> {
    let begun = Instant::now();
    loop {
        match timeout(SLOW_JOURNAL, journal.confirm_leadership()).await {
            Ok(Ok(())) => return Ok(()),
            Err(_) | Ok(Err(JournalError::Slow { .. })) => {
                let seconds = begun.elapsed().as_secs();
                errors.note(format!("the coordinator's journal has taken no writes for {seconds} s; trying again"));
                warn!(seconds, "a checkpoint waits for the coordinator's journal");
            }
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// Removes files of checkpoints that were never completed. Nothing depends on it, so it does not wait long for a
/// failing store. A coordinator that was fenced must not clean up after its successor.
pub(in super::super) async fn clean_up_before(store: &CheckpointStore, journal: &Journal) {
    if !matches!(timeout(SLOW_JOURNAL, journal.confirm_leadership()).await, Ok(Ok(()))) {
        return;
    }
    let store = store.clone().with_retry(RetryPolicy::new(Duration::from_secs(5), 0));
    report_removed(store.collect_all_garbage().await);
}

fn report_removed(removed: Result<usize, CheckpointError>) {
    match removed {
        Ok(0) => {}
        Ok(files) => info!(files, "files of checkpoints that were never completed are removed"),
        Err(error) => warn!(%error, "files of checkpoints that were never completed are left"),
    }
}
