//! The checkpoint that is being written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::position::Position;
use crate::ids::{ModalityName, Turn, WorkerId};

/// The checkpoint that is being written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingCheckpoint {
    /// Where training stood when it was cut; its turn is the checkpoint's name.
    pub position: Position,
    /// The validation score of this very state, if it was evaluated.
    pub score: Option<f64>,
    /// Whose parts are to come, and who was asked for them; nobody yet where no worker has come to that place.
    pub(super) missing: BTreeMap<ModalityName, Option<WorkerId>>,
}

impl PendingCheckpoint {
    /// Its turn.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.position.turn
    }

    /// Whose parts are to come.
    pub fn missing(&self) -> impl Iterator<Item = &ModalityName> {
        self.missing.keys()
    }

    /// Whether all parts are there and the manifest is being written.
    #[must_use]
    pub fn has_all_files(&self) -> bool {
        self.missing.is_empty()
    }
}
