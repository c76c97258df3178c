//! Finds damaged checkpoints, and an undamaged one to use instead.

use antiphon_process::{Interrupts, full_message};
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore, MANIFEST};
use antiphon_store::storage::StoreOptions;
use anyhow::anyhow;

use crate::client::ClientError;
use crate::exit::{self, Exiting};
use crate::progress::Progress;
use crate::runs::open;

/// A checkpoint with a file that is missing or differs from the manifest.
#[derive(Debug)]
pub(super) struct Damaged {
    /// The newest checkpoint of the same job that is not damaged.
    undamaged: Option<String>,
}

impl Damaged {
    /// Says which checkpoint to use instead. `use_it` describes the command that uses it.
    pub(super) fn advice(&self, use_it: impl Fn(&str) -> String) -> String {
        match &self.undamaged {
            Some(url) => format!("the newest undamaged checkpoint of this job is `{url}`; {}", use_it(url)),
            None => "this job has no undamaged checkpoint".to_owned(),
        }
    }
}

/// Reads every file of a checkpoint. If one is damaged, also reads the job's other checkpoints, the newest first. None if
/// no file is damaged, or if Ctrl-C or SIGTERM ends the search.
pub(super) async fn find_damage(url: &str, stores: &StoreOptions) -> Option<Damaged> {
    let mut interrupts = Interrupts::listen().ok()?;
    let progress = Progress::new();
    let found = tokio::select! {
        found = progress.during("searching for an undamaged checkpoint", search(url, stores)) => found,
        () = interrupts.next() => None,
    };
    progress.clear();
    found
}

/// As [`find_damage`], to its end.
async fn search(url: &str, stores: &StoreOptions) -> Option<Damaged> {
    let place = match open(url, stores).await {
        Ok(checkpoint) if is_damage(&first_error(&checkpoint).await?) => checkpoint.url(),
        Err(CheckpointError::Manifest { url, .. }) => checkpoint_of(&url).to_owned(),
        Ok(_) | Err(_) => return None,
    };
    Some(Damaged { undamaged: newest_undamaged(&place, stores).await })
}

/// The folder of a manifest.
fn checkpoint_of(manifest: &str) -> &str {
    manifest.trim_end_matches(MANIFEST).trim_end_matches('/')
}

/// The newest undamaged checkpoint of the job to which the one at `url` belongs.
async fn newest_undamaged(url: &str, stores: &StoreOptions) -> Option<String> {
    let (all, _) = url.rsplit_once('/')?;
    let (job, _) = all.rsplit_once('/')?;
    let checkpoints = CheckpointStore::new(&stores.open(job).ok()?);
    for turn in checkpoints.list().await.ok()?.into_iter().rev() {
        if let Ok(checkpoint) = checkpoints.open(turn).await
            && first_error(&checkpoint).await.is_none()
        {
            return Some(checkpoint.url());
        }
    }
    None
}

/// The error of the first file that is unreadable or differs from the manifest.
async fn first_error(checkpoint: &Checkpoint) -> Option<CheckpointError> {
    for name in checkpoint.manifest().files.keys() {
        if let Err(error) = checkpoint.file(name).await {
            return Some(error);
        }
    }
    None
}

/// Whether the error means a damaged checkpoint, not a failing store.
fn is_damage(error: &CheckpointError) -> bool {
    matches!(error, CheckpointError::Damaged { .. } | CheckpointError::Manifest { .. }) || error.is_missing()
}

/// Adds to the error which checkpoint to use instead if the one at `url` is damaged. `use_it` is as in
/// [`Damaged::advice`].
pub(super) async fn with_undamaged(
    error: anyhow::Error,
    url: &str,
    stores: &StoreOptions,
    use_it: impl Fn(&str) -> String,
) -> anyhow::Error {
    let cause = error.downcast_ref::<Exiting>().map_or(&error, |exiting| &exiting.error);
    let url = match (cause.downcast_ref::<CheckpointError>(), cause.downcast_ref::<ClientError>()) {
        (Some(CheckpointError::Manifest { url, .. }), _) => checkpoint_of(url),
        (Some(error), _) if is_damage(error) => url,
        // The coordinator reads the head of the checkpoint.
        (_, Some(ClientError::Refused(_))) => url,
        // For any other error, the files are not read.
        _ => return error,
    };
    match find_damage(url, stores).await {
        None => error,
        Some(damaged) => {
            let message = anyhow!("{}; {}", full_message(error.as_ref()), damaged.advice(use_it));
            Exiting { exit: exit::of(&error), error: message }.into()
        }
    }
}
