//! The part of the machine's state that a checkpoint holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::epoch::EpochPlan;
use crate::ids::{HeadVersion, ModalityName, Turn};

/// How far training has come: the state of the machine that a checkpoint holds and a resumed job needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Turns applied.
    pub turn: Turn,
    /// Steps that the head has taken.
    pub head_version: HeadVersion,
    /// Steps that each encoder has taken.
    pub steps_done: BTreeMap<ModalityName, u64>,
    /// The current epoch, from 0.
    pub epoch: u64,
    /// Turns of the current epoch that are applied.
    pub turn_in_epoch: u64,
    /// Which modality has which turn of the current epoch.
    pub plan: EpochPlan,
    /// Sum and count of the losses of this epoch's steps.
    pub losses: BTreeMap<ModalityName, LossSum>,
    /// The best validation score of a checkpoint so far, and its turn.
    pub best: Option<(f64, Turn)>,
}

/// A running mean of losses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossSum {
    /// Σ of the steps' mean losses, in nats.
    pub sum: f64,
    /// Steps in the sum.
    pub steps: u64,
}
