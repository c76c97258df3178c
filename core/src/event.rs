//! The events of a job, for people and programs: one JSON object each.

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
    /// The coordinator has accepted the job.
    Submitted {
        /// Its id.
        job: JobId,
        /// Its name.
        name: JobName,
        /// The checkpoint that it resumes from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed_from: Option<String>,
    },
    /// Another coordinator continues the job. Turns after the checkpoint are trained again.
    Recovered {
        /// The job.
        job: JobId,
        /// The term of the new coordinator.
        term: Term,
        /// Turns applied in the checkpoint that it resumes from.
        turn: Turn,
        /// The checkpoint that it resumes from; none if it starts from the beginning.
        checkpoint: Option<String>,
        /// What happened to the previous coordinator.
        reason: String,
    },
    /// The coordinator shuts down before the job is over. The next coordinator continues it.
    Suspended {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// The newest checkpoint.
        checkpoint: Option<String>,
    },
    /// The job is not computing.
    Waiting {
        /// The job.
        job: JobId,
        /// What it waits for.
        reason: String,
        /// For how long it has waited so far.
        seconds: f64,
    },
    /// Every worker is ready, and training starts.
    Started {
        /// The job.
        job: JobId,
        /// Turns applied before, if the job was resumed.
        turn: Turn,
        /// Turns planned in all.
        turns: u64,
        /// The data and encoder of each modality.
        modalities: BTreeMap<ModalityName, ModalityStart>,
    },
    /// A worker sends no heartbeat, makes no progress, or failed and backs off. Its slot is released to other workers.
    LeaseExpired {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Its modality.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// The reason.
        reason: String,
    },
    /// A worker has left its slot.
    WorkerLost {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Its modality.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// The reason.
        reason: String,
    },
    /// A worker has replayed its modality's steps and can take part.
    WorkerReady {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Its modality.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// Steps that it replayed.
        replayed: u64,
        /// Time since its predecessor was lost, or since it joined if there was none.
        seconds: f64,
    },
    /// A worker rounds differently from the workers before it, so the bits of the result depend on which worker took
    /// which step.
    MixedNumerics {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// Its modality.
        modality: ModalityName,
        /// The worker.
        worker: WorkerId,
        /// How it rounds.
        fingerprint: NumericFingerprint,
        /// How the workers before it round.
        before: BTreeSet<NumericFingerprint>,
    },
    /// The head took a step.
    Step(StepEvent),
    /// Where the time went since the job started on this coordinator: at the end of an epoch, at most every ten
    /// seconds, and of the job.
    Times {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// The time of each worker.
        modalities: BTreeMap<ModalityName, Account<WorkerTimes>>,
        /// The time of the job's task on the coordinator.
        coordinator: Account<CoordinatorTimes>,
        /// How long contributions waited in the queue of that task.
        queued: Queued,
    },
    /// A split was evaluated.
    Evaluated {
        /// The job.
        job: JobId,
        /// Turns applied.
        turn: Turn,
        /// The number of the evaluation.
        evaluation: EvaluationId,
        /// The result.
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
        /// Time from the snapshot until the checkpoint existed.
        seconds: f64,
        /// Time of these in which training was stalled: while the head and the largest encoder were snapshotted, and
        /// while a turn had to wait for the checkpoint.
        stall_seconds: f64,
    },
    /// The job is over. Always the last event.
    Finished(Finished),
}

/// A modality at the start of training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModalityStart {
    /// Samples with this modality.
    pub samples: SplitSizes,
    /// Parameters of its encoder.
    pub parameters: u64,
    /// How its worker rounds; none in events of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<NumericFingerprint>,
    /// Turns that it has had.
    pub turns_done: u64,
    /// Turns that it has in the whole job, as far as they are known.
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
    /// The modality that has the turn.
    pub modality: ModalityName,
    /// Mean cross-entropy of the batch, nats.
    pub loss: f64,
    /// Share of the batch that this modality alone classifies correctly.
    pub accuracy: f64,
    /// |G|, the Frobenius norm of the head's gradient.
    pub gradient_norm: f64,
    /// |G P| / |G|. Near 0, the projector leaves nothing of the gradient.
    pub projected_ratio: f64,
    /// trace(P) of the projector of the step, before the fold of its turn.
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
    /// Turns planned in all; none if training never started.
    #[serde(default)]
    pub turns: Option<u64>,
    /// The newest checkpoint.
    pub checkpoint: Option<String>,
    /// Its digest as `sha256:…`.
    pub digest: Option<String>,
    /// The checkpoint that is best by validation.
    pub best: Option<BestCheckpoint>,
    /// The evaluation of the test split.
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

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalState {
    /// It reached its length.
    Succeeded,
    /// It was stopped or interrupted.
    Stopped,
    /// It could not continue.
    Failed,
}
