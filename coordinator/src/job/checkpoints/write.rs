//! Tasks beside the job's task that write a checkpoint: the head's files, the manifest, and the removal of old
//! checkpoints.

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

/// How long a write to the journal may take before the job's status reports it.
const SLOW_JOURNAL: Duration = Duration::from_secs(5);

/// The target of a checkpoint, and the journal that permits it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) store: CheckpointStore,
    pub(super) journal: Journal,
    pub(super) errors: StoreErrors,
}

/// The checkpoints to retain.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) newest: usize,
    pub(super) best: Option<Turn>,
    /// Old checkpoints from which workers are loading their encoders.
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

/// Waits for the head's files and writes the manifest, which completes the checkpoint. Then removes old checkpoints.
pub(super) async fn write_manifest(
    Target { store, journal, errors }: &Target,
    mut manifest: Manifest,
    head: AbortOnDropHandle<Result<Vec<(String, FileEntry)>, SaveError>>,
    keep: Keep,
) -> Result<Saved, SaveError> {
    manifest.files.extend(head.await??);
    // A coordinator that was fenced while it stalled must not complete a checkpoint of its successor, or remove its
    // files.
    wait_for_leadership(journal, errors).await?;
    let checkpoint = store.complete(&manifest).await?;
    wait_for_leadership(journal, errors).await?;
    // The checkpoint exists, even if an old one cannot be removed.
    if let Err(error) = store.retain(keep.newest, keep.best, &keep.in_use).await {
        warn!(%error, "old checkpoints of the job cannot be removed now; the next checkpoint retries it");
    }
    report_removed(store.collect_garbage(&BTreeSet::new()).await);
    Ok(Saved::new(&manifest, checkpoint.url()))
}

/// Waits until the journal confirms that this coordinator is the leader, however long the store takes. Reports a long
/// wait.
async fn wait_for_leadership(journal: &Journal, errors: &StoreErrors) -> Result<(), JournalError> {
    let started = Instant::now();
    loop {
        match timeout(SLOW_JOURNAL, journal.confirm_leadership()).await {
            Ok(Ok(())) => return Ok(()),
            Err(_) | Ok(Err(JournalError::Slow { .. })) => {
                let seconds = started.elapsed().as_secs();
                errors.note(format!("the coordinator's journal has accepted no writes for {seconds} s; retrying"));
                warn!(seconds, "a checkpoint waits for the coordinator's journal");
            }
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// Removes files of incomplete checkpoints. Nothing depends on it, so it does not wait long for a failing store. A
/// fenced coordinator must not remove files of its successor.
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
        Ok(files) => info!(files, "files of incomplete checkpoints were removed"),
        Err(error) => warn!(%error, "files of incomplete checkpoints cannot be removed; the next checkpoint retries"),
    }
}
