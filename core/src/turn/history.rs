//! What a replacement worker has to replay: every modality's steps since the checkpoint that it would start from.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::message::Progress;
use crate::ids::{HeadVersion, ModalityName, Step, Turn};

/// A step that the head has taken, with what an encoder needs to replay it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PastStep {
    /// The turn it belonged to.
    pub turn: Turn,
    /// The step within the turn.
    pub step: Step,
    /// The head that was granted for it.
    pub head_version: HeadVersion,
    /// The progress of the job at that step.
    pub progress: Progress,
}

/// The steps of every modality since the checkpoints that a replay may start from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    modalities: BTreeMap<ModalityName, OwnSteps>,
    /// Steps of each encoder in the newest complete checkpoint, where a replacement starts.
    base: BTreeMap<ModalityName, u64>,
}

/// The steps of one modality, in order; the first is its `first`-th, counted from 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct OwnSteps {
    first: u64,
    steps: VecDeque<PastStep>,
}

impl History {
    /// An empty history that starts after these steps.
    pub(super) fn from(steps_done: &BTreeMap<ModalityName, u64>) -> Self {
        let own =
            |(name, done): (&ModalityName, &u64)| (name.clone(), OwnSteps { first: *done, steps: VecDeque::new() });
        Self { modalities: steps_done.iter().map(own).collect(), base: steps_done.clone() }
    }

    /// Steps that an encoder has when it is loaded from the newest complete checkpoint.
    pub(super) fn base(&self, modality: &ModalityName) -> u64 {
        self.base.get(modality).copied().unwrap_or(0)
    }

    /// Adds a step that the head has taken.
    pub(super) fn push(&mut self, modality: &ModalityName, step: PastStep) {
        self.modalities.entry(modality.clone()).or_default().steps.push_back(step);
    }

    /// The `number`-th step of a modality, counted from 0 over the whole job.
    pub(super) fn step(&self, modality: &ModalityName, number: u64) -> Option<PastStep> {
        let own = self.modalities.get(modality)?;
        let index = number.checked_sub(own.first)?;
        own.steps.get(usize::try_from(index).ok()?).copied()
    }

    /// Sets the base to a checkpoint that is now complete, with these steps of each encoder.
    pub(super) fn rebase(&mut self, steps_done: &BTreeMap<ModalityName, u64>) {
        self.base.clone_from(steps_done);
    }

    /// Forgets a modality's steps that no worker will replay: those before the base and, while a worker still replays,
    /// before `needed`. Returns the heads of these steps, which are no longer needed.
    pub(super) fn forget(&mut self, modality: &ModalityName, needed: Option<u64>) -> Vec<HeadVersion> {
        let before = needed.map_or(self.base(modality), |needed| needed.min(self.base(modality)));
        let mut forgotten = Vec::new();
        if let Some(own) = self.modalities.get_mut(modality) {
            while own.first < before
                && let Some(step) = own.steps.pop_front()
            {
                own.first += 1;
                forgotten.push(step.head_version);
            }
        }
        forgotten
    }

    /// Checks that the history reaches up to `steps_done` and back to the base.
    pub(super) fn check(&self, steps_done: &BTreeMap<ModalityName, u64>) -> Result<(), String> {
        for (name, own) in &self.modalities {
            let done = steps_done.get(name).copied().unwrap_or(0);
            if own.first + own.steps.len() as u64 != done {
                let count = own.steps.len();
                return Err(format!(
                    "the history has {count} steps of `{name}` from {}, but {done} are done",
                    own.first
                ));
            }
            if own.first > self.base(name) {
                return Err(format!(
                    "the history has steps of `{name}` from {}, but a replay may start at {}",
                    own.first,
                    self.base(name)
                ));
            }
        }
        Ok(())
    }
}
