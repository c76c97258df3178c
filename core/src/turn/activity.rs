//! Describes what a job is computing, and which worker it waits for.

use super::machine::{Duty, Phase, TurnMachine};
use crate::ids::{ModalityName, WorkerId};
use crate::time::Time;

impl TurnMachine {
    /// What is being computed, and by which worker: `` turn 12: `audio` worker `audio-1` has the head ``. For an
    /// evaluation the machine knows only the split; the shell knows which workers still have to send logits.
    #[must_use]
    pub fn activity(&self) -> String {
        let turn = self.position.turn;
        match &self.phase {
            Phase::Gathering | Phase::Finished(_) => self.phase_name().to_owned(),
            Phase::Training(open) => {
                let holder = self.named(&open.modality, open.holder.as_ref());
                let (first, step) = (format!("turn {turn}: {holder}"), open.step.0 + 1);
                match (self.spec.schedule.turn_batches, open.applied) {
                    (1, false) => format!("{first} has the head"),
                    (1, true) => format!("{first} is learning from it"),
                    (steps, false) => format!("{first} has the head for step {step} of {steps}"),
                    (steps, true) => format!("{first} is learning from step {step} of {steps}"),
                }
            }
            Phase::Boundary { duties, .. } => match duties.front() {
                Some(Duty::Evaluate { split, .. }) => format!("turn {turn}: evaluating {split}"),
                Some(Duty::Save | Duty::FreeBuffer | Duty::Finish(_)) | None => {
                    format!("turn {turn}: {}", self.checkpoint_activity())
                }
            },
        }
    }

    /// What the pending checkpoint waits for.
    pub(super) fn checkpoint_activity(&self) -> String {
        let Some(pending) = &self.pending_checkpoint else { return "no checkpoint is being written".to_owned() };
        let turn = pending.turn();
        if pending.has_all_files() {
            return format!("writing the head and the manifest of checkpoint {turn}");
        }
        let from: Vec<String> = pending.missing().map(|modality| self.named(modality, self.worker(modality))).collect();
        format!("checkpoint {turn} waits for files of {}", from.join(", "))
    }

    /// The modality whose step is open.
    #[must_use]
    pub fn holder(&self) -> Option<&ModalityName> {
        match &self.phase {
            Phase::Training(open) => Some(&open.modality),
            Phase::Gathering | Phase::Boundary { .. } | Phase::Finished(_) => None,
        }
    }

    /// When the open step was granted.
    #[must_use]
    pub fn granted(&self) -> Option<Time> {
        match &self.phase {
            Phase::Training(open) if open.holder.is_some() => Some(open.granted),
            _ => None,
        }
    }

    pub(super) fn named(&self, modality: &ModalityName, worker: Option<&WorkerId>) -> String {
        worker.map_or_else(|| format!("`{modality}`"), |worker| format!("`{modality}` worker `{worker}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Input, SplitSizes};
    use super::*;
    use crate::ids::{EvaluationId, Turn};
    use crate::spec::Length;

    #[test]
    fn the_worker_that_is_waited_for_is_named() {
        let mut spec = job(&["audio", "image"]);
        spec.schedule.length = Length::Turns(2);
        let mut machine = running(spec, SplitSizes { train: 20, validation: 5, test: 0 });
        assert_eq!(machine.activity(), "turn 0: `audio` worker `w-audio` has the head");
        assert_eq!(machine.granted(), Some(Time(1)));
        contribute(&mut machine, 10);
        assert_eq!(machine.activity(), "turn 1: `image` worker `w-image` has the head");
        contribute(&mut machine, 10);
        assert_eq!(machine.activity(), "turn 2: evaluating validation");
        assert_eq!(machine.granted(), None);
        take(&mut machine, Input::EvaluationFinished { evaluation: EvaluationId(0), score: 0.5 });
        let both = "`audio` worker `w-audio`, `image` worker `w-image`";
        assert_eq!(machine.activity(), format!("turn 2: checkpoint 2 waits for files of {both}"));
        let saved = |name: &str| Input::FilesSaved { worker: worker(name), turn: Turn(2) };
        take(&mut machine, saved("audio"));
        assert_eq!(machine.activity(), "turn 2: checkpoint 2 waits for files of `image` worker `w-image`");
        take(&mut machine, saved("image"));
        assert_eq!(machine.activity(), "turn 2: writing the head and the manifest of checkpoint 2");
        take(&mut machine, Input::CheckpointWritten { turn: Turn(2) });
        assert_eq!(machine.activity(), "finished");
    }

    #[test]
    fn a_turn_of_several_steps_says_which() {
        let mut spec = job(&["audio"]);
        spec.schedule.turn_batches = 2;
        let mut machine = running(spec, SplitSizes { train: 20, validation: 0, test: 0 });
        contribute(&mut machine, 10);
        assert_eq!(machine.activity(), "turn 0: `audio` worker `w-audio` has the head for step 2 of 2");
    }
}
