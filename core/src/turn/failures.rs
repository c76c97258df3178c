//! How often the workers of a modality have failed at one step.

use serde::{Deserialize, Serialize};

use crate::ids::WorkerId;
use crate::time::Time;

/// Failures of a modality's workers that came at the same step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    pub(super) steps_done: u64,
    /// The number of failures, and of those that count against the job.
    pub(super) all: u32,
    pub(super) counted: u32,
    /// More than one worker has failed, so the cause is not one worker.
    pub(super) general: bool,
    /// The last failure: its worker, its reason, and until when that worker backs off or, if `general`, every worker.
    pub(super) worker: WorkerId,
    pub(super) reason: String,
    pub(super) until: Time,
}
