//! How often the workers of a modality have failed at one step.

use serde::{Deserialize, Serialize};

use crate::ids::WorkerId;
use crate::time::Time;

/// Failures of a modality's workers that came at the same step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    pub(super) steps_done: u64,
    /// All of them, and those that count against the job.
    pub(super) all: u32,
    pub(super) counted: u32,
    /// It is not one worker's fault.
    pub(super) general: bool,
    /// The last of them: whose, why, and until when that worker is left alone, or from the second on any.
    pub(super) worker: WorkerId,
    pub(super) reason: String,
    pub(super) until: Time,
}
