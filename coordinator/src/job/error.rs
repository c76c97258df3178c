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

/// Why a job cannot continue. People read the message as the reason of the job's failure.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    /// The head of a new job was not made.
    #[error("the head cannot be made: {0}")]
    NewHead(JoinError),
    /// The turn machine asks for a step whose contribution was not received.
    #[error("a step was to be applied, but no contribution to it was received; this is a bug in the coordinator")]
    NoContribution,
    /// The head does not take the step.
    #[error("turn {turn} of `{modality}`: {source}")]
    Step { turn: Turn, modality: ModalityName, source: ContributionError },
    /// A head that a worker has to replay is not readable.
    #[error("a head of the replay buffer cannot be read: {0}")]
    ReplayBuffer(io::Error),
    /// The workers' logits do not fit together.
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
    /// The turn machine asks for a manifest of a checkpoint that was not begun.
    #[error("it was never begun; this is a bug in the coordinator")]
    NotPending,
    /// The head cannot be snapshotted.
    #[error(transparent)]
    Snapshot(#[from] HeadFilesError),
    /// A file of the head cannot be encoded.
    #[error(transparent)]
    Encode(#[from] TensorsError),
    /// The manifest cannot be encoded.
    #[error("its manifest is not fit for JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] CheckpointError),
    /// It is not known whether this coordinator is still the leader, or it is not.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A task that writes it ended abnormally.
    #[error("a task that writes it ended: {0}")]
    Task(#[from] JoinError),
}
