//! What a replacement has to take again: every modality's own steps since the checkpoint that it would begin from.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::message::Progress;
use crate::ids::{HeadVersion, ModalityName, Step, Turn};

/// A step that the head has taken, as far as an encoder needs to know to take it again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PastStep {
    /// The turn it belonged to.
    pub turn: Turn,
    /// The step within the turn.
    pub step: Step,
    /// The head that was granted for it.
    pub head_version: HeadVersion,
    /// Where the job stood.
    pub progress: Progress,
}

/// The steps of every modality since the checkpoints that anybody may begin from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct History {
    modalities: BTreeMap<ModalityName, OwnSteps>,
    /// Steps of each encoder in the newest complete checkpoint, where a replacement begins.
    base: BTreeMap<ModalityName, u64>,
}

/// The steps of one modality, in order; the first is its `first`-th, counted from 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct OwnSteps {
    first: u64,
    steps: VecDeque<PastStep>,
}

impl History {
    /// No steps since this.
    pub(super) fn from(steps_done: &BTreeMap<ModalityName, u64>) -> Self {
        let own =
            |(name, done): (&ModalityName, &u64)| (name.clone(), OwnSteps { first: *done, steps: VecDeque::new() });
        Self { modalities: steps_done.iter().map(own).collect(), base: steps_done.clone() }
    }

    /// Steps that an encoder has behind it when it is loaded from the newest complete checkpoint.
    pub(super) fn base(&self, modality: &ModalityName) -> u64 {
        self.base.get(modality).copied().unwrap_or(0)
    }

    /// The head has taken this step.
    pub(super) fn push(&mut self, modality: &ModalityName, step: PastStep) {
        self.modalities.entry(modality.clone()).or_default().steps.push_back(step);
    }

    /// The `number`-th step of a modality, counted from 0 over the whole job.
    pub(super) fn step(&self, modality: &ModalityName, number: u64) -> Option<PastStep> {
        let own = self.modalities.get(modality)?;
        let index = number.checked_sub(own.first)?;
        own.steps.get(usize::try_from(index).ok()?).copied()
    }

    /// A checkpoint with so many steps of each encoder is complete: replacements begin from it now.
    pub(super) fn rebase(&mut self, steps_done: &BTreeMap<ModalityName, u64>) {
        self.base.clone_from(steps_done);
    }

    /// Forgets a modality's steps that nobody takes again: those before the base, and before `needed` where somebody who
    /// began earlier is on the way. The heads of these steps are not needed any more.
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

    /// That all steps up to `steps_done` follow the ones kept, and that the base is among them.
    pub(super) fn check(&self, steps_done: &BTreeMap<ModalityName, u64>) -> Result<(), String> {
        for (name, own) in &self.modalities {
            let done = steps_done.get(name).copied().unwrap_or(0);
            if own.first + own.steps.len() as u64 != done {
                let kept = own.steps.len();
                return Err(format!("{kept} steps of `{name}` from {} are kept, but {done} are done", own.first));
            }
            if own.first > self.base(name) {
                return Err(format!(
                    "steps of `{name}` from {} are kept, but one may begin at {}",
                    own.first,
                    self.base(name)
                ));
            }
        }
        Ok(())
    }
}
