//! The contract between the shell (edge, registry, workers) and the task that owns one job. Both sides depend on
//! this module, and it depends on neither.
//!
//! ```text
//! shell ── JobConfig ──▶ job::spawn ──▶ JobHandle
//!                                         inbox   JobInput: workers joining and leaving, their messages, stop
//!                                         status  the state of the job
//! job task ── outbound of each worker ──▶ CoordinatorMessage
//! ```
//!
//! Before a job's task starts, the shell appends the event that the job was submitted or recovered. Everything about
//! one worker comes in order: `WorkerJoined`, its messages, `WorkerGone`. The pool fills the slots of the
//! specification's modalities, with one worker each. It fills a slot again if the worker is lost or the job releases
//! the slot. When the task ends, the shell closes the event log, evicts the job's workers, and frees them.

use std::fmt;

use antiphon_core::event::FinalState;
use antiphon_core::ids::{ModalityName, Turn, WorkerId};
use antiphon_core::spec::JobSpec;
use antiphon_proto::chunks::Followed;
use antiphon_proto::contribution::ContributionLimits;
use antiphon_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

/// The capacity of a job's inbox. If it is full, its workers' streams wait.
pub const INBOX: usize = 64;

/// The shapes of contributions to the head of this job.
#[must_use]
pub fn contribution_limits(spec: &JobSpec) -> ContributionLimits {
    ContributionLimits {
        classes: spec.labels.classes.count(),
        width: spec.head.width as usize,
        batch: spec.schedule.batch as usize,
    }
}

/// The largest total size of the tensors in one message of a worker (a contribution or a chunk of logits), in bytes.
#[must_use]
pub fn message_bytes(spec: &JobSpec) -> usize {
    let logits =
        (spec.evaluation.chunk as usize).saturating_mul(spec.labels.classes.count()).saturating_mul(size_of::<f32>());
    contribution_limits(spec).message_bytes().max(logits)
}

/// The limits of a job's replay buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayBufferLimits {
    /// The limit in memory, in bytes.
    pub memory: u64,
    /// The limit of the temporary file in `TMPDIR`, in bytes.
    pub disk: u64,
}

impl Default for ReplayBufferLimits {
    fn default() -> Self {
        Self { memory: 512 << 20, disk: 16 << 30 }
    }
}

/// The pool's interface for a job.
pub trait Workers: fmt::Debug + Send + Sync {
    /// Releases a worker's slot. The next free worker of its modality gets it.
    fn release_slot(&self, worker: &WorkerId);

    /// Gives a released slot back to its worker, even if another worker has got it in the meantime.
    fn reclaim_slot(&self, modality: &ModalityName, worker: &WorkerId);

    /// Evicts a worker from this job.
    fn evict(&self, worker: &WorkerId, reason: &str);

    /// Whether no worker has the slot of `modality` in this job and no registered worker could get it.
    fn is_unassigned(&self, modality: &ModalityName) -> bool;

    /// The number of registered workers of `modality`, in any job. The reason of a wait shows it.
    fn registered(&self, modality: &ModalityName) -> usize;
}

/// The shell's side of a running job.
#[derive(Debug)]
pub struct JobHandle {
    /// The job's inbox. Its capacity is [`INBOX`].
    pub inbox: mpsc::Sender<JobInput>,
    /// The newest status. The last one says how the job ended.
    pub status: watch::Receiver<JobStatus>,
    /// The job's task, which ends with the job.
    pub task: tokio::task::JoinHandle<()>,
}

/// Inputs of a job's task.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all inputs are messages, so a box would only add an allocation to each"
)]
pub enum JobInput {
    /// The pool has assigned a worker to the job.
    WorkerJoined {
        /// The worker.
        worker: WorkerId,
        /// The modality whose slot it gets.
        modality: ModalityName,
        /// The channel to the worker. It is full while the worker does not read.
        outbound: mpsc::Sender<v1::CoordinatorMessage>,
    },
    /// The job has lost a worker, which will not answer any more.
    WorkerGone {
        /// The worker.
        worker: WorkerId,
        /// A human-readable reason.
        why: String,
    },
    /// A worker's message about this job. Names are valid; tensors and numbers are not checked yet.
    FromWorker {
        /// The worker.
        worker: WorkerId,
        /// The message. Never `register`, `heartbeat` or `released`, which the session handles.
        message: v1::worker_message::Message,
        /// The elements of its tensors that followed it.
        followed: Followed,
        /// The time at which it was received.
        since: Instant,
        /// Admits the worker's next message after this one is processed.
        turnstile: OwnedSemaphorePermit,
    },
    /// A worker's heartbeat.
    Heartbeat {
        /// The worker.
        worker: WorkerId,
        /// A counter that grows with everything that the worker completes.
        progress: u64,
        /// Whether it has work to do.
        busy: bool,
        /// The last error of a store that the worker retries.
        store_error: Option<String>,
    },
    /// Stop at the next turn boundary, with a checkpoint.
    Stop {
        /// Whether the job stops without waiting for missing workers.
        now: bool,
    },
    /// As [`JobInput::Stop`], but the next coordinator resumes the job. An earlier request to stop still holds.
    Suspend,
}

/// The reason in the status of a job that was asked to stop.
pub(crate) const STOPPED: &str = "stopped on request";

/// The status of a job, as shown to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// The state of the job.
    pub state: JobState,
    /// What the job does or waits for, or why it ended. Empty if it has succeeded.
    pub reason: String,
    /// Since when a worker has had the head, if a worker has it.
    pub since: Option<tokio::time::Instant>,
    /// Turns applied.
    pub turn: Turn,
    /// Turns planned in total. None while unknown.
    pub turns: Option<u64>,
    /// The URL of the newest complete checkpoint.
    pub checkpoint: Option<String>,
}

impl JobStatus {
    /// The status of a job that waits, for this reason, before anything has happened.
    #[must_use]
    pub fn waiting(reason: impl Into<String>) -> Self {
        Self {
            state: JobState::Waiting,
            reason: reason.into(),
            since: None,
            turn: Turn(0),
            turns: None,
            checkpoint: None,
        }
    }
}

impl From<FinalState> for JobState {
    fn from(state: FinalState) -> Self {
        match state {
            FinalState::Succeeded => Self::Succeeded,
            FinalState::Stopped => Self::Stopped,
            FinalState::Failed => Self::Failed,
        }
    }
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It waits for workers, or for its data to be opened.
    Waiting,
    /// It trains.
    Running,
    /// It reached its length.
    Succeeded,
    /// It could not continue.
    Failed,
    /// It was asked to stop.
    Stopped,
}

impl JobState {
    /// Whether the job is over.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Stopped)
    }
}
