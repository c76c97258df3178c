//! The contract between the shell (edge, registry, workers) and the task that owns one job. Both sides know it; it knows neither.
//!
//! ```text
//! shell ── JobConfig ──▶ job::spawn ──▶ JobHandle
//!                                         inbox   JobInput: workers joining and leaving, their messages, stop
//!                                         status  what people are told
//! job task ── outbound of each worker ──▶ CoordinatorMessage
//! ```
//! The shell says in the job's events that it was submitted or recovered, before its task begins.
//! Everything about one worker comes in order: `WorkerJoined`, its messages, `WorkerGone`. The pool fills the places of the
//! specification's modalities by itself, one worker each, and fills a place again whose worker is gone, or which the job offers. When the task ends, the
//! shell closes the event log, tells the job's workers to release it, and frees them.

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

/// All that a job's task begins with.
#[derive(Debug)]
pub struct JobConfig {
    /// The job.
    pub id: JobId,
    /// What to do.
    pub spec: Specification,
    /// The reign under which it runs.
    pub term: Term,
    /// Where its checkpoints go.
    pub store: CheckpointStore,
    /// Where to begin, if not at the beginning.
    pub resume: Option<Box<Resumed>>,
    /// Where events are appended; the shell closes it when the task ends.
    pub events: EventLog,
    /// Its workers.
    pub workers: Arc<dyn Workers>,
    /// What the head computes on.
    pub threads: HeadThreads,
    /// To ask, before a manifest is written, whether this coordinator still reigns.
    pub journal: Journal,
    /// With its store.
    pub retry: RetryPolicy,
    /// Where heads are kept that may have to be granted again.
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

/// Where so many heads of one size are kept.
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

/// What a job asks of whoever holds its workers.
pub trait Workers: fmt::Debug + Send + Sync {
    /// Offers a worker's place to others: the next that is free gets it.
    fn offer(&self, worker: &WorkerId);

    /// The place is this worker's, whoever it was given to meanwhile.
    fn keep(&self, modality: &ModalityName, worker: &WorkerId);

    /// Has a worker let go of this job.
    fn evict(&self, worker: &WorkerId, reason: &str);

    /// Whether nobody has the place of `modality` in this job, or could get it from those who are registered.
    fn is_nobodys(&self, modality: &ModalityName) -> bool;

    /// How many workers of `modality` are registered, whosesoever they are: for the reason of a wait.
    fn registered(&self, modality: &ModalityName) -> usize;
}

/// What the shell holds of a running job.
#[derive(Debug)]
pub struct JobHandle {
    /// Bounded; use a capacity of [`INBOX`].
    pub inbox: mpsc::Sender<JobInput>,
    /// The newest status; the last one says how the job ended.
    pub status: watch::Receiver<JobStatus>,
    /// Ends when the job does.
    pub task: tokio::task::JoinHandle<()>,
}

/// What a job's task is told.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all inputs are messages, so a box would only add an allocation to each"
)]
pub enum JobInput {
    /// The pool lent this worker to the job.
    WorkerJoined {
        /// Who.
        worker: WorkerId,
        /// For which modality.
        modality: ModalityName,
        /// To send to it. Full while the worker does not read.
        outbound: mpsc::Sender<v1::CoordinatorMessage>,
    },
    /// The worker is lost to the job, and will not answer.
    WorkerGone {
        /// Who.
        worker: WorkerId,
        /// In words.
        why: String,
    },
    /// A worker says something about this job. Names are valid; tensors and numbers are not checked yet.
    FromWorker {
        /// Who.
        worker: WorkerId,
        /// What: never `register`, `heartbeat` or `released`, which the shell answers.
        message: v1::worker_message::Message,
        /// Elements of its tensors that came after it.
        followed: Followed,
        /// When it had come in.
        since: Instant,
        /// Lets the worker's next message in, once this one is taken.
        turnstile: OwnedSemaphorePermit,
    },
    /// A worker gives a sign of life.
    Heartbeat {
        /// Who.
        worker: WorkerId,
        /// Grows with everything that it gets done.
        progress: u64,
        /// Whether it has something to do.
        busy: bool,
        /// What it suffers from a store that it tries again, in words.
        trouble: Option<String>,
    },
    /// Stop at the next turn boundary, with a checkpoint.
    Stop {
        /// It is not to wait for workers that are not there.
        now: bool,
    },
    /// As [`JobInput::Stop`], but the job is not over: the next coordinator goes on with it. Whoever asked it to stop before is not
    /// overruled.
    Suspend,
}

/// Why a job is over that somebody asked to stop.
pub(crate) const STOPPED: &str = "stopped on request";

/// What people are told of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobStatus {
    /// In a word.
    pub state: JobState,
    /// What or whom it waits for, or why it ended; empty once it has succeeded.
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

/// How a job is doing, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// For workers, or for its data to be opened.
    Waiting,
    /// Turns are taken.
    Running,
    /// It reached its length.
    Succeeded,
    /// It could not go on.
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
