//! The turn machine, and the turns that the head has applied.

use antiphon_core::ids::{ModalityName, Turn, WorkerId};
use antiphon_core::turn::TurnMachine;

/// The protocol state of the job.
#[derive(Debug)]
pub(super) struct Turns {
    pub(super) machine: TurnMachine,
    /// Whether all workers have been ready at the same time.
    pub(super) started: bool,
    /// The turns that the head has applied, if a failed step made the machine count one more.
    applied: Option<Turn>,
}

impl Turns {
    pub(super) fn new(machine: TurnMachine) -> Self {
        Self { machine, started: false, applied: None }
    }

    /// Turns that the head has applied.
    pub(super) fn turn(&self) -> Turn {
        self.applied.unwrap_or(self.machine.position().turn)
    }

    /// Records that the head did not take a step that the machine counts, and stays at `turn`.
    pub(super) fn stay_at(&mut self, turn: Turn) {
        self.applied = Some(turn);
    }

    /// Turns planned in total. Unknown until every worker has been ready.
    pub(super) fn planned(&self) -> Option<u64> {
        self.started.then(|| self.machine.turns_planned())
    }

    /// Whether `worker` has the modality's slot.
    pub(super) fn has_slot(&self, modality: &ModalityName, worker: &WorkerId) -> bool {
        self.machine.worker(modality) == Some(worker)
    }
}
