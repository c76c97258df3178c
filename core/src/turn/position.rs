//! Where training stands: the part of a machine's state that outlives it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::epoch::EpochPlan;
use crate::ids::{HeadVersion, ModalityName, Turn};

/// Where training stands: what a checkpoint keeps of the machine, and all that a resumed job needs of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Turns applied.
    pub turn: Turn,
    /// Steps that the head has taken.
    pub head_version: HeadVersion,
    /// Steps that each encoder has taken.
    pub steps_done: BTreeMap<ModalityName, u64>,
    /// The epoch that is under way, from 0.
    pub epoch: u64,
    /// Turns of it that are applied.
    pub turn_in_epoch: u64,
    /// Its layout.
    pub plan: EpochPlan,
    /// Sum and count of the losses of its steps.
    pub losses: BTreeMap<ModalityName, LossSum>,
    /// The best validation score of a checkpoint, and its turn.
    pub best: Option<(f64, Turn)>,
}

/// A mean in the making.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossSum {
    /// Σ of the steps' mean losses, nats.
    pub sum: f64,
    /// Steps.
    pub steps: u64,
}
