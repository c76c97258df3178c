//! Counts how often the workers of a modality have failed at one step.

use serde::{Deserialize, Serialize};

use crate::ids::WorkerId;
use crate::time::Time;

/// Failures of a modality's workers that came at the same step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    pub(super) steps_done: u64,
    /// The number of all failures, and the number of those that count against the job.
    pub(super) all: u32,
    pub(super) counted: u32,
    /// Whether more than one worker has failed, so that the cause is not one worker.
    pub(super) general: bool,
    /// The last failure: its worker, its reason, and the time until which that worker (or, if `general`, every worker)
    /// backs off.
    pub(super) worker: WorkerId,
    pub(super) reason: String,
    pub(super) until: Time,
}
