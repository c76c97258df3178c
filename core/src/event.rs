//! What happens in a job, as people and programs are told: one JSON object each.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{EvaluationId, JobId, JobName, ModalityName, Term, Turn, WorkerId};
use crate::metrics::EvaluationReport;
use crate::numerics::NumericFingerprint;
use crate::times::{Account, CoordinatorTimes, Queued, WorkerTimes};
use crate::turn::SplitSizes;

/// One event of a job. Serialises to an object whose `event` field names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum JobEvent {
    /// The coordinator holds the job.
    Submitted {
        /// Its id.
        job: JobId,
        /// Its name.
        name: JobName,
        /// The checkpoint it goes on from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed_from: Option<String>,
    },
    /// Another coordinator goes on with the job. Turns after the one it goes on from are taken again.
    Recovered {
        /// The job.
        job: JobId,
        /// The reign under which it goes on.
        term: Term,
        /// Turns applied in the state that it goes on from.
        turn: Turn,
        /// The checkpoint it goes on from; none where it begins again.
        checkpoint: Option<String>,
        /// What became of the coordinator before.
        reason: String,
    },
    /// The coordinator ends while the job is not over: the next one goes on with it.
    Suspended {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// The newest checkpoint.
        checkpoint: Option<String>,
    },
    /// The job is not computing, and why.
    Waiting {
        /// The job.
        job: JobId,
        /// In words.
        reason: String,
        /// For how long so far.
        seconds: f64,
    },
    /// Every worker is ready.
    Started {
        /// The job.
        job: JobId,
        /// Turns applied before.
        turn: Turn,
        /// Turns planned in all.
        turns: u64,
        /// What each worker found.
        modalities: BTreeMap<ModalityName, ModalityStart>,
    },
    /// A worker shows no life, or gets nothing done, or has failed and is left alone: its place is offered to others.
    LeaseExpired {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Whose.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// In words.
        reason: String,
    },
    /// A worker has lost its place, or given it up.
    WorkerLost {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Whose.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// In words.
        reason: String,
    },
    /// Whoever took a lost worker's place has come to where the head is.
    WorkerReady {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Whose.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// Steps that it took again.
        replayed: u64,
        /// From the loss of the one before to this, or from joining where none was lost.
        seconds: f64,
    },
    /// A worker computes for the job that rounds otherwise than those before it: the bits of the result are those of this mixture.
    MixedNumerics {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Whose.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// Its own.
        fingerprint: NumericFingerprint,
        /// Of all that have computed for the job before it.
        before: BTreeSet<NumericFingerprint>,
    },
    /// The head took a step.
    Step(StepEvent),
    /// Where the time went since the job began here: at the end of an epoch, if ten seconds have passed, and of the job.
    Times {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Of each worker.
        modalities: BTreeMap<ModalityName, Account<WorkerTimes>>,
        /// Of the job's task on the coordinator.
        coordinator: Account<CoordinatorTimes>,
        /// How long contributions lay before that task took them up: while it, or its core, did something else.
        queued: Queued,
    },
    /// A split was gone through.
    Evaluated {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Which evaluation.
        evaluation: EvaluationId,
        /// What came of it.
        report: EvaluationReport,
    },
    /// A checkpoint exists.
    Checkpoint {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Its URL or path.
        checkpoint: String,
        /// As `sha256:…`; see [`crate::digest`].
        digest: String,
        /// Whether it is the best by validation so far.
        best: bool,
        /// From the cut until it existed.
        seconds: f64,
        /// Of these, those in which training stood still for it: while the head and the largest of the encoders were snapshotted, and
        /// where a turn had to wait until it was written.
        stall_seconds: f64,
    },
    /// The job is over. Always the last event.
    Finished(Finished),
}

/// One worker's start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModalityStart {
    /// Samples with this modality.
    pub samples: SplitSizes,
    /// Numbers in its encoder.
    pub parameters: u64,
    /// How its worker rounds; none in events of before this was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<NumericFingerprint>,
    /// Turns that it has had before.
    pub turns_done: u64,
    /// Turns that it has in all, as far as they are known.
    pub turns: u64,
}

/// One step of the shared head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepEvent {
    /// The job.
    pub job: JobId,
    /// The turn it belongs to.
    pub turn: Turn,
    /// The step within the turn.
    pub step: u32,
    /// Epoch of the job, from 0.
    pub epoch: u64,
    /// Whose turn it is.
    pub modality: ModalityName,
    /// Mean cross-entropy of the batch, nats.
    pub loss: f64,
    /// Share of the batch that this modality alone gets right.
    pub accuracy: f64,
    /// |G|, Frobenius.
    pub gradient_norm: f64,
    /// |G P| / |G|: near 0 the projector has frozen the head.
    pub projected_ratio: f64,
    /// trace(P) of the projector that the step went through: before the turn's own fold.
    pub projector_trace: f64,
    /// Learning rate of the head.
    pub lr: f64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The job.
    pub job: JobId,
    /// `succeeded`, `stopped` or `failed`.
    pub state: FinalState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Turns applied.
    pub turn: Turn,
    /// Turns planned in all; none where no worker was ever ready.
    #[serde(default)]
    pub turns: Option<u64>,
    /// The newest checkpoint.
    pub checkpoint: Option<String>,
    /// Its digest as `sha256:…`.
    pub digest: Option<String>,
    /// The checkpoint that is best by validation.
    pub best: Option<BestCheckpoint>,
    /// The test split, by the state that the job ended in.
    pub evaluation: Option<EvaluationReport>,
}

impl Finished {
    /// The end of a job of which nothing more is known: it has applied no turn and written no checkpoint.
    #[must_use]
    pub fn new(job: JobId, state: FinalState, reason: Option<String>) -> Self {
        Self {
            job,
            state,
            reason,
            turn: Turn(0),
            turns: None,
            checkpoint: None,
            digest: None,
            best: None,
            evaluation: None,
        }
    }
}

/// The checkpoint that is best by validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestCheckpoint {
    /// Turns applied.
    pub turn: Turn,
    /// Its URL or path.
    pub checkpoint: String,
    /// Accuracy of the job's fusion rule on the validation split.
    pub score: f64,
}

/// How a job ended, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalState {
    /// It reached its length.
    Succeeded,
    /// It was asked to stop, or interrupted.
    Stopped,
    /// It could not go on.
    Failed,
}
