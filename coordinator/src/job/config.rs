//! The configuration of a job's task. The registry fills it in. The pool and the sessions know only the contract.

use std::sync::Arc;

use antiphon_core::ids::{JobId, Term};
use antiphon_store::checkpoints::CheckpointStore;
use antiphon_store::retry::RetryPolicy;

use super::contract::{ReplayBufferLimits, Workers};
use super::resume::Resumed;
use super::specification::Specification;
use crate::events::EventLog;
use crate::head_threads::HeadThreads;
use crate::journal::Journal;

/// The configuration of a job's task.
#[derive(Debug)]
pub struct JobConfig {
    /// The job.
    pub id: JobId,
    /// The job's specification.
    pub spec: Specification,
    /// The term under which it runs.
    pub term: Term,
    /// The store of its checkpoints.
    pub store: CheckpointStore,
    /// The checkpoint that it resumes from, loaded.
    pub resume: Option<Box<Resumed>>,
    /// The event log. The shell closes it when the task ends.
    pub events: EventLog,
    /// The pool's interface for its workers.
    pub workers: Arc<dyn Workers>,
    /// The threads that its head computes on.
    pub threads: HeadThreads,
    /// The journal, which confirms before each manifest that this coordinator is still the leader.
    pub journal: Journal,
    /// The retry policy of requests to its store.
    pub retry: RetryPolicy,
    /// The limits of its replay buffer.
    pub replay_buffer: ReplayBufferLimits,
}
