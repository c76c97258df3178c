//! The events of a job. Each is one JSON object.

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
        /// The id that the coordinator gave it, or that the client asked for.
        job: JobId,
        /// The `name` of its job file.
        name: JobName,
        /// The URL or path of the checkpoint that it resumes from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed_from: Option<String>,
    },
    /// Another coordinator continues the job. Turns after the checkpoint are trained again.
    Recovered {
        /// The id of the job.
        job: JobId,
        /// The term of the new coordinator.
        term: Term,
        /// Turns applied in the checkpoint that it resumes from.
        turn: Turn,
        /// The URL or path of that checkpoint. None if the job starts from the beginning.
        checkpoint: Option<String>,
        /// What happened to the previous coordinator.
        reason: String,
    },
    /// The coordinator shuts down before the job is over. The next coordinator continues it.
    Suspended {
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The URL or path of the newest checkpoint, if there is one.
        checkpoint: Option<String>,
    },
    /// The job is not computing.
    Waiting {
        /// The id of the job.
        job: JobId,
        /// What it waits for, in one sentence.
        reason: String,
        /// How long it has waited so far, in seconds.
        seconds: f64,
    },
    /// Every worker is ready, and training starts.
    Started {
        /// The id of the job.
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
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The modality that the worker serves.
        modality: ModalityName,
        /// The id of the worker.
        worker: WorkerId,
        /// Why: no heartbeat, no progress, or a failure, in one sentence.
        reason: String,
    },
    /// A worker has left its slot.
    WorkerLost {
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The modality that the worker serves.
        modality: ModalityName,
        /// The id of the worker.
        worker: WorkerId,
        /// Why, in one sentence.
        reason: String,
    },
    /// A worker has replayed its modality's steps and can take part.
    WorkerReady {
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The modality that the worker serves.
        modality: ModalityName,
        /// The id of the worker.
        worker: WorkerId,
        /// Steps that it replayed.
        replayed: u64,
        /// Seconds since its predecessor was lost, or since it joined if there was none.
        seconds: f64,
    },
    /// A worker rounds differently from the workers before it, so the bits of the result depend on which worker took
    /// which step.
    MixedNumerics {
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The modality that the worker serves.
        modality: ModalityName,
        /// The id of the worker.
        worker: WorkerId,
        /// The fingerprint of the worker's numerics.
        fingerprint: NumericFingerprint,
        /// The fingerprints of the workers before it.
        before: BTreeSet<NumericFingerprint>,
    },
    /// The head took a step.
    Step(StepEvent),
    /// Where the time went since the job started on this coordinator: at the end of an epoch, at most every ten
    /// seconds, and of the job.
    Times {
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The times of each modality's worker.
        modalities: BTreeMap<ModalityName, Account<WorkerTimes>>,
        /// The times of the job's task on the coordinator.
        coordinator: Account<CoordinatorTimes>,
        /// How long contributions waited in the queue of that task.
        queued: Queued,
    },
    /// A split was evaluated.
    Evaluated {
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The number of the evaluation, counted from 0.
        evaluation: EvaluationId,
        /// The scores, of each modality and fused.
        report: EvaluationReport,
    },
    /// A checkpoint exists.
    Checkpoint {
        /// The id of the job.
        job: JobId,
        /// Turns applied so far, over all modalities.
        turn: Turn,
        /// The URL or path of its folder.
        checkpoint: String,
        /// The digest of the run at this turn, as `sha256:…`. See [`crate::digest`].
        digest: String,
        /// Whether it is the best by validation so far.
        best: bool,
        /// Seconds from the snapshot until the checkpoint existed.
        seconds: f64,
        /// Seconds of these in which training was stalled: while the head and the largest encoder were snapshotted, and
        /// while a turn waited for the checkpoint.
        stall_seconds: f64,
    },
    /// The job is over. Always the last event.
    Finished(Finished),
}

/// A modality at the start of training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModalityStart {
    /// Samples that have this modality, by split.
    pub samples: SplitSizes,
    /// The number of parameters of its encoder.
    pub parameters: u64,
    /// The fingerprint of its worker's numerics. None in events of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<NumericFingerprint>,
    /// Turns of this modality that were applied before, if the job was resumed.
    pub turns_done: u64,
    /// Turns of this modality in the whole job, as far as they are known.
    pub turns: u64,
}

/// One step of the shared head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepEvent {
    /// The id of the job.
    pub job: JobId,
    /// The turn that the step belongs to, counted from 0.
    pub turn: Turn,
    /// The step within the turn, counted from 0.
    pub step: u32,
    /// The epoch of the job, counted from 0.
    pub epoch: u64,
    /// The modality that has the turn.
    pub modality: ModalityName,
    /// Mean cross-entropy of the batch, in nats.
    pub loss: f64,
    /// Share of the batch that this modality alone classifies correctly.
    pub accuracy: f64,
    /// |G|, the Frobenius norm of the head's gradient before projection and clipping.
    pub gradient_norm: f64,
    /// |G P| / |G|. Near 0, the projector leaves nothing of the gradient.
    pub projected_ratio: f64,
    /// trace(P) of the projector of the step, before the fold of its turn.
    pub projector_trace: f64,
    /// The learning rate of the head at this step.
    pub lr: f64,
}

/// The end of a job: its outcome and last figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The id of the job.
    pub job: JobId,
    /// Whether it succeeded, was stopped or failed.
    pub state: FinalState,
    /// Why it failed, or what prevented an orderly stop. None otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Turns applied so far, over all modalities.
    pub turn: Turn,
    /// Turns planned in all; none if training never started.
    #[serde(default)]
    pub turns: Option<u64>,
    /// The URL or path of the newest checkpoint, if there is one.
    pub checkpoint: Option<String>,
    /// The digest of that checkpoint, as `sha256:…`.
    pub digest: Option<String>,
    /// The checkpoint with the best validation score, if any was evaluated.
    pub best: Option<BestCheckpoint>,
    /// The evaluation of the test split, if there was one.
    pub evaluation: Option<EvaluationReport>,
}

impl Finished {
    /// The end of a job that has applied no turn and written no checkpoint.
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

/// The checkpoint with the best validation score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestCheckpoint {
    /// Turns applied so far, over all modalities.
    pub turn: Turn,
    /// The URL or path of its folder.
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
