//! The checkpoint that is being written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::position::Position;
use crate::ids::{ModalityName, Turn, WorkerId};

/// The checkpoint that is being written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingCheckpoint {
    /// The position that it holds; its turn is the checkpoint's name.
    pub position: Position,
    /// The validation score of exactly this state, if it was evaluated.
    pub score: Option<f64>,
    /// The modalities whose files are missing, each with the worker that was asked for them, or None while no worker
    /// has reached that step.
    pub(super) missing: BTreeMap<ModalityName, Option<WorkerId>>,
}

impl PendingCheckpoint {
    /// Its turn.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.position.turn
    }

    /// The modalities whose files are missing.
    pub fn missing(&self) -> impl Iterator<Item = &ModalityName> {
        self.missing.keys()
    }

    /// Whether all files of workers are written and the manifest is being written.
    #[must_use]
    pub fn has_all_files(&self) -> bool {
        self.missing.is_empty()
    }
}
