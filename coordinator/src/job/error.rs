//! Why a job cannot continue.

use std::io;

use antiphon_core::head::{ContributionError, HeadFilesError};
use antiphon_core::ids::{ModalityName, Split, Turn};
use antiphon_core::join;
use antiphon_core::metrics::EvaluationError;
use antiphon_store::checkpoints::CheckpointError;
use antiphon_store::tensors::TensorsError;
use tokio::task::JoinError;

use crate::journal::JournalError;

/// Why a job cannot continue. The message is shown as the reason of the job's failure.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    /// The head of a new job could not be created.
    #[error("the head cannot be created: {0}; this is a bug in the coordinator")]
    NewHead(JoinError),
    /// The turn machine applies a step whose contribution was not received.
    #[error("a step was applied without a contribution; this is a bug in the coordinator")]
    NoContribution,
    /// The head rejects the step.
    #[error("turn {turn} of `{modality}`: {source}")]
    Step { turn: Turn, modality: ModalityName, source: ContributionError },
    /// A head that a worker has to replay cannot be read.
    #[error("a head of the replay buffer cannot be read: {0}; check the disk of TMPDIR, then resume the job")]
    ReplayBuffer(io::Error),
    /// The workers' logits contradict each other.
    #[error(transparent)]
    Join(#[from] join::JoinError),
    /// A sample cannot be evaluated.
    #[error("sample `{sample}` of {split}: {source}")]
    Sample { sample: String, split: Split, source: EvaluationError },
    /// A checkpoint cannot be written.
    #[error("checkpoint {turn}: {source}")]
    Checkpoint { turn: Turn, source: SaveError },
}

/// Why a checkpoint cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum SaveError {
    /// The turn machine writes a manifest of a checkpoint that was not started.
    #[error("the checkpoint was never started; this is a bug in the coordinator")]
    NotPending,
    /// The head cannot be snapshotted.
    #[error(transparent)]
    Snapshot(#[from] HeadFilesError),
    /// A file of the head cannot be encoded.
    #[error(transparent)]
    Encode(#[from] TensorsError),
    /// The manifest cannot be encoded.
    #[error("its manifest cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The store rejects it.
    #[error(transparent)]
    Store(#[from] CheckpointError),
    /// This coordinator is no longer the leader, or cannot confirm that it is.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A task that writes the checkpoint ended abnormally.
    #[error("a task that writes the checkpoint ended abnormally: {0}")]
    Task(#[from] JoinError),
}
