//! Replay: a replacement's encoder takes the modality's steps since the checkpoint, until it has all of them.

use super::history::PastStep;
use super::machine::TurnMachine;
use super::message::Effect;
use super::slot::{Slot, SlotState};
use crate::ids::{Attempt, ModalityName};
use crate::time::Time;

impl TurnMachine {
    /// Counts a replayed step and starts the next one.
    pub(super) fn replayed(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        if let Some(Slot { state: SlotState::Replaying { done, at, .. }, .. }) = self.slots.get_mut(modality) {
            *done += 1;
            *at = None;
        }
        self.replay_next(now, modality, effects);
    }

    /// The step that a worker replays.
    pub(super) fn replays(&self, modality: &ModalityName) -> Option<PastStep> {
        match self.slots.get(modality)?.state {
            SlotState::Replaying { at, .. } => at,
            SlotState::BackingOff { .. } | SlotState::Opening { .. } | SlotState::Ready => None,
        }
    }

    /// Sends the worker the next step to replay. After the last one, whatever waited for the worker resumes.
    pub(super) fn replay_next(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        self.ask_for_files(modality, effects);
        let behind = self.steps_done(modality);
        let Some(slot) = self.slots.get_mut(modality) else { return };
        let SlotState::Replaying { base, done, at } = &mut slot.state else { return };
        if let Some(past) = (*done < behind).then(|| self.history.step(modality, *done)).flatten() {
            *at = Some(past);
            let (worker, lease) = (slot.worker.clone(), slot.lease);
            let turn = self.reference(past.turn, past.step, Attempt(0), past.head_version);
            effects.push(Effect::Replay { worker, turn, lease, progress: past.progress });
            return;
        }
        let (worker, replayed) = (slot.worker.clone(), *done - *base);
        slot.state = SlotState::Ready;
        self.forget_heads(effects);
        effects.push(Effect::Ready { worker, modality: modality.clone(), replayed });
        self.slot_is_filled(now, modality, effects);
    }

    /// Drops the heads that no worker will need for a replay.
    pub(super) fn forget_heads(&mut self, effects: &mut Vec<Effect>) {
        let mut versions = Vec::new();
        for modality in &self.spec.modalities {
            let needed = self.slots.get(&modality.name).and_then(Slot::replays_from);
            versions.extend(self.history.forget(&modality.name, needed));
        }
        if !versions.is_empty() {
            versions.sort_unstable();
            effects.push(Effect::ForgetHeads { versions });
        }
    }

    pub(super) fn steps_done(&self, modality: &ModalityName) -> u64 {
        self.position.steps_done.get(modality).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Input, Rejected};
    use super::super::testing::*;
    use super::*;
    use crate::spec::ScheduleMode;

    #[test]
    fn a_replacement_replays_and_is_granted_the_turn_that_waited() {
        let mut machine = running(two(), SAMPLES);
        for _ in 0..4 {
            contribute(&mut machine, 10);
        }
        // Turn 4 is audio's; it dies with the head in its hands.
        let lost = open_header(&machine, 10);
        assert!(take(&mut machine, left("audio")).is_empty());
        let waiting = machine.waiting(Time(1), |_| 0).expect("the turn is held up").reason;
        assert_eq!(waiting, "turn 4 is blocked: waiting for 1 `audio` worker: 0 registered");
        assert!(matches!(refuse(&mut machine, Input::Contribution(lost)), Rejected::StaleAttempt { .. }));

        let effects = take(&mut machine, join("second", "audio"));
        assert!(matches!(&effects[..], [Effect::Assign { .. }]), "{effects:?}");
        let effects = take(&mut machine, prepared("second", 0));
        assert_eq!(grants(&effects), [replay("w-second", 0)]);
        let waiting = machine.waiting(Time(1), |_| 1).expect("the turn is held up").reason;
        let reason = "`audio` worker `w-second` is replaying its steps since the last checkpoint, 0 of 2 done";
        assert_eq!(waiting, format!("turn 4 is blocked: {reason}"));
        let effects = replayed(&mut machine, "second", &effects);
        assert_eq!(grants(&effects), [replay("w-second", 2)]);
        let effects = replayed(&mut machine, "second", &effects);
        assert!(matches!(&effects[..], [Effect::Ready { replayed: 2, .. }, Effect::Grant { .. }]), "{effects:?}");
        assert_eq!(grants(&effects), [granted("w-second", 4, 1)]);
        assert_eq!(machine.waiting(Time(1), |_| 1), None);
        assert_eq!(grants(&contribute(&mut machine, 10)), [granted("w-image", 5, 0)]);
    }

    #[test]
    fn the_others_continue_until_the_lost_modality_has_its_turn() {
        let mut machine = running(two(), SAMPLES);
        // Image has turn 1 next; it dies before.
        take(&mut machine, left("image"));
        assert_eq!(machine.waiting(Time(1), |_| 0), None, "audio has the head");
        assert!(grants(&contribute(&mut machine, 10)).is_empty());
        take(&mut machine, join("second", "image"));
        let effects = take(&mut machine, prepared("second", 0));
        // It was not granted before.
        assert_eq!(grants(&effects), [granted("w-second", 1, 0)]);
    }

    #[test]
    fn sequential_a_replay_counts_as_learning_from_the_open_step() {
        let mut spec = two();
        spec.schedule.mode = ScheduleMode::Sequential;
        let mut machine = running(spec, SAMPLES);
        contribute(&mut machine, 10);
        take(&mut machine, left("audio"));
        take(&mut machine, join("second", "audio"));
        let effects = take(&mut machine, prepared("second", 0));
        let effects = replayed(&mut machine, "second", &effects);
        assert!(
            matches!(&effects[..], [Effect::Ready { .. }, Effect::EndTurn { .. }, Effect::Grant { .. }]),
            "{effects:?}"
        );
        assert_eq!(grants(&effects), [granted("w-image", 1, 0)]);
    }
}
