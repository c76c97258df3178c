//! The contract between the shell (edge, registry, workers) and the task that owns one job. Both sides know it; it
//! knows neither.
//!
//! ```text
//! shell ── JobConfig ──▶ job::spawn ──▶ JobHandle
//!                                         inbox   JobInput: workers joining and leaving, their messages, stop
//!                                         status  what people are told
//! job task ── outbound of each worker ──▶ CoordinatorMessage
//! ```
//!
//! Before a job's task starts, the shell appends the event that the job was submitted or recovered. Everything about
//! one worker comes in order: `WorkerJoined`, its messages, `WorkerGone`. The pool fills the slots of the
//! specification's modalities by itself, one worker each. It fills a slot again if the worker is gone or the job
//! releases the slot. When the task ends, the shell closes the event log, tells the job's workers to let go of the job,
//! and frees them.

use std::fmt;
use std::sync::Arc;

use antiphon_core::event::FinalState;
use antiphon_core::ids::{JobId, ModalityName, Term, Turn, WorkerId};
use antiphon_core::spec::JobSpec;
use antiphon_proto::chunks::Followed;
use antiphon_proto::contribution::ContributionLimits;
use antiphon_proto::v1;
use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::retry::RetryPolicy;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;

use super::resume::Resumed;
use super::specification::Specification;
use crate::events::EventLog;
use crate::head_threads::HeadThreads;
use crate::journal::Journal;

/// Messages that wait for a job before its workers' streams are held back.
pub const INBOX: usize = 64;

/// Everything that a job's task starts with.
#[derive(Debug)]
pub struct JobConfig {
    /// The job.
    pub id: JobId,
    /// What to do.
    pub spec: Specification,
    /// The term under which it runs.
    pub term: Term,
    /// Where its checkpoints go.
    pub store: CheckpointStore,
    /// The checkpoint that it resumes from.
    pub resume: Option<Box<Resumed>>,
    /// Where events are appended; the shell closes it when the task ends.
    pub events: EventLog,
    /// Its workers.
    pub workers: Arc<dyn Workers>,
    /// What the head computes on.
    pub threads: HeadThreads,
    /// Asked before a manifest is written: whether this coordinator is still the leader.
    pub journal: Journal,
    /// For requests to its store.
    pub retry: RetryPolicy,
    /// The size of its replay buffer.
    pub replay_buffer: ReplayBufferLimits,
}

/// What a contribution to the head of this job may look like.
#[must_use]
pub fn contribution_limits(spec: &JobSpec) -> ContributionLimits {
    ContributionLimits {
        classes: spec.labels.classes.count(),
        width: spec.head.width as usize,
        batch: spec.schedule.batch as usize,
    }
}

/// Bytes that the tensors of one message of a worker may have together: of a contribution, or a chunk of logits.
#[must_use]
pub fn message_bytes(spec: &JobSpec) -> usize {
    let logits =
        (spec.evaluation.chunk as usize).saturating_mul(spec.labels.classes.count()).saturating_mul(size_of::<f32>());
    contribution_limits(spec).message_bytes().max(logits)
}

/// How large the replay buffer of a job may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayBufferLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of a temporary file, in `TMPDIR`.
    pub disk: u64,
}

impl Default for ReplayBufferLimits {
    fn default() -> Self {
        Self { memory: 512 << 20, disk: 16 << 30 }
    }
}

/// What a job asks of the pool that its workers come from.
pub trait Workers: fmt::Debug + Send + Sync {
    /// Releases a worker's slot: the next free worker of its modality gets it.
    fn release_slot(&self, worker: &WorkerId);

    /// Gives a slot back to the worker that it was released from, even if another worker has got it meanwhile.
    fn reclaim_slot(&self, modality: &ModalityName, worker: &WorkerId);

    /// Has a worker let go of this job.
    fn evict(&self, worker: &WorkerId, reason: &str);

    /// Whether no worker has the slot of `modality` in this job, and no registered worker could get it.
    fn is_unassigned(&self, modality: &ModalityName) -> bool;

    /// How many workers of `modality` are registered, of any job: for the reason of a wait.
    fn registered(&self, modality: &ModalityName) -> usize;
}

/// The shell's side of a running job.
#[derive(Debug)]
pub struct JobHandle {
    /// Bounded; use a capacity of [`INBOX`].
    pub inbox: mpsc::Sender<JobInput>,
    /// The newest status; the last one says how the job ended.
    pub status: watch::Receiver<JobStatus>,
    /// Ends when the job does.
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
        /// Sends to the worker. Full while the worker does not read.
        outbound: mpsc::Sender<v1::CoordinatorMessage>,
    },
    /// The job has lost a worker, which will not answer.
    WorkerGone {
        /// The worker.
        worker: WorkerId,
        /// The reason, for people.
        why: String,
    },
    /// A worker's message about this job. Names are valid; tensors and numbers are not checked yet.
    FromWorker {
        /// The worker.
        worker: WorkerId,
        /// Never `register`, `heartbeat` or `released`, which the session answers.
        message: v1::worker_message::Message,
        /// Elements of its tensors that came after it.
        followed: Followed,
        /// When it was received.
        since: Instant,
        /// Lets the worker's next message in once this one is processed.
        turnstile: OwnedSemaphorePermit,
    },
    /// A worker's heartbeat.
    Heartbeat {
        /// The worker.
        worker: WorkerId,
        /// Grows with everything that the worker does.
        progress: u64,
        /// Whether it has something to do.
        busy: bool,
        /// The last error of a store that the worker retries.
        store_error: Option<String>,
    },
    /// Stop at the next turn boundary, with a checkpoint.
    Stop {
        /// Without waiting for workers that are not there.
        now: bool,
    },
    /// As [`JobInput::Stop`], but the job is not over: the next coordinator resumes it. A request to stop that came
    /// before is not overruled.
    Suspend,
}

/// The reason of a job that was asked to stop.
pub(crate) const STOPPED: &str = "stopped on request";

/// What people are told of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// The state.
    pub state: JobState,
    /// What the job does or waits for, or why it ended; empty once it has succeeded.
    pub reason: String,
    /// Since when a worker has had the head, if one has it.
    pub since: Option<tokio::time::Instant>,
    /// Turns applied.
    pub turn: Turn,
    /// Turns planned; None while unknown.
    pub turns: Option<u64>,
    /// URL of the newest complete checkpoint.
    pub checkpoint: Option<String>,
}

impl JobStatus {
    /// Waiting, for the reason given, before anything has happened.
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
    /// It takes turns.
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
