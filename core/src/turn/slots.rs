//! Slots and the workers in them: joining, opening, leaving.

use super::machine::{Duty, Phase, TurnMachine};
use super::message::{Effect, Rejected, SplitSizes};
use super::slot::{Slot, SlotState};
use crate::ids::{ModalityName, WorkerId};
use crate::time::Time;

impl TurnMachine {
    /// Puts a worker from the pool into a slot that is empty or released.
    pub(super) fn join(
        &mut self,
        now: Time,
        worker: WorkerId,
        modality: ModalityName,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let known = self.spec.modalities.iter().any(|m| m.name == modality);
        let taken = self.slots.get(&modality).is_some_and(|slot| slot.expired.is_none());
        let taken = taken && !self.others_may_try(&modality);
        if !known || taken || self.modality_of(&worker).is_some() {
            return Err(Rejected::SlotTaken { modality });
        }
        if let Some(before) = self.slots.get(&modality).map(|slot| slot.worker.clone()) {
            let why = format!("its slot was given to `{worker}`");
            self.empty_slot(&modality, effects);
            effects.push(Effect::Evict { worker: before, why });
        }
        let lease = self.next_lease;
        self.next_lease = lease.next();
        let paused = self.backoff_of(now, &worker, &modality);
        let state = match paused {
            Some(until) => SlotState::BackingOff { until },
            None => SlotState::Opening { base: self.history.base(&modality) },
        };
        self.slots.insert(modality.clone(), Slot::new(worker.clone(), lease, state, now));
        match paused {
            Some(_) => self.release_meanwhile(&modality, effects),
            None => effects.push(Effect::Assign { worker, modality, lease }),
        }
        Ok(())
    }

    pub(super) fn prepared(
        &mut self,
        now: Time,
        worker: &WorkerId,
        samples: SplitSizes,
        steps_done: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality = self.modality_with_slot(worker)?;
        let Some(Slot { state: SlotState::Opening { base }, .. }) = self.slots.get(&modality) else {
            return Err(self.unexpected());
        };
        let base = *base;
        let differs =
            |what, expected: String, given: u64| Rejected::Malformed { what, expected, given: given.to_string() };
        if steps_done != base {
            return Err(differs("steps_done", base.to_string(), steps_done));
        }
        if samples.train == 0 {
            return Err(differs("samples.train", "at least 1".to_owned(), 0));
        }
        if let Some(before) = self.samples.get(&modality).filter(|before| **before != samples) {
            let fields = [
                ("samples.train", before.train, samples.train),
                ("samples.validation", before.validation, samples.validation),
                ("samples.test", before.test, samples.test),
            ];
            if let Some((what, before, given)) = fields.into_iter().find(|(_, before, given)| before != given) {
                return Err(differs(what, format!("{before}, as its predecessor had"), given));
            }
        }
        self.samples.insert(modality.clone(), samples);
        if let Some(slot) = self.slots.get_mut(&modality) {
            slot.state = SlotState::Replaying { base, done: steps_done, at: None };
        }
        self.heard(now, worker, effects);
        self.replay_next(now, &modality, effects);
        Ok(())
    }

    /// Called when a slot's worker can be granted steps: resumes whatever waited for it.
    pub(super) fn slot_is_filled(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Gathering => {
                if self.all_ready() {
                    effects.push(Effect::Started);
                    self.begin(now, effects);
                }
            }
            Phase::Training(open) if open.modality == *modality => {
                let open = open.clone();
                let holds = open.holder.as_ref() == self.worker(modality);
                match open.applied {
                    // By replaying the open step, the encoder has learned from it.
                    true if !holds => self.after_step(now, open, effects),
                    false if !holds => self.grant_again(now, open, effects),
                    _ => {}
                }
            }
            Phase::Boundary { duties, .. } => {
                if let Some(Duty::Evaluate { evaluation: None, .. }) = duties.front() {
                    self.begin_duty(now, effects);
                }
            }
            Phase::Training(_) | Phase::Finished(_) => {}
        }
    }

    /// A worker was asked to stop. It gives up its slot, after the open step if that step was granted to it.
    pub(super) fn leaving(&mut self, now: Time, worker: &WorkerId, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality = self.modality_with_slot(worker)?;
        self.heard(now, worker, effects);
        if self.granted_to(&modality).is_some() {
            if let Some(slot) = self.slots.get_mut(&modality) {
                slot.leaving = true;
            }
        } else {
            self.evict(&modality, effects);
        }
        Ok(())
    }

    /// Evicts a worker that was asked to stop and has finished its step.
    pub(super) fn evict_if_leaving(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        if self.slots.get(modality).is_some_and(|slot| slot.leaving) {
            self.evict(modality, effects);
        }
    }

    pub(super) fn evict(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        let Some(worker) = self.worker(modality).cloned() else { return };
        self.empty_slot(modality, effects);
        self.revoke_grant(&worker);
        effects.push(Effect::Evict { worker, why: "it was asked to stop".to_owned() });
    }

    /// A worker's connection has ended.
    pub(super) fn left(&mut self, worker: &WorkerId, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        self.not_finished()?;
        let was_holder = self.revoke_grant(worker);
        match self.modality_of(worker).cloned() {
            Some(modality) => self.empty_slot(&modality, effects),
            None if was_holder => {}
            None => return Err(Rejected::NoSlot { worker: worker.clone() }),
        }
        Ok(())
    }

    /// Empties a slot. A late contribution of its worker to the open step is accepted unless the grant is revoked: see
    /// [`Self::revoke_grant`].
    pub(super) fn empty_slot(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        self.slots.remove(modality);
        self.files_are_lost(modality);
        if let Phase::Boundary { duties, .. } = &mut self.phase
            && let Some(Duty::Evaluate { evaluation: running @ Some(_), .. }) = duties.front_mut()
            && let Some(evaluation) = running.take()
        {
            effects.push(Effect::AbandonEvaluation { evaluation });
        }
        self.forget_heads(effects);
    }

    /// If the open step was granted to this worker, it has to be granted again.
    pub(super) fn revoke_grant(&mut self, worker: &WorkerId) -> bool {
        match &mut self.phase {
            Phase::Training(open) if open.holder.as_ref() == Some(worker) => {
                open.holder = None;
                open.attempt = open.attempt.next();
                true
            }
            _ => false,
        }
    }

    /// Whether every modality has a worker whose encoder has all of its steps.
    pub(super) fn all_ready(&self) -> bool {
        self.spec.modalities.iter().all(|m| self.slots.get(&m.name).is_some_and(Slot::is_ready))
    }

    /// The modality of a worker that must have a slot.
    pub(super) fn modality_with_slot(&self, worker: &WorkerId) -> Result<ModalityName, Rejected> {
        self.modality_of(worker).cloned().ok_or_else(|| Rejected::NoSlot { worker: worker.clone() })
    }

    pub(super) fn check_slots(&self) -> Result<(), String> {
        for (name, slot) in &self.slots {
            let behind = self.steps_done(name);
            match &slot.state {
                SlotState::Replaying { done, at, .. } if *done >= behind || at.is_none() => {
                    return Err(format!("`{name}` has {done} of {behind} steps, and replays {at:?}"));
                }
                SlotState::Opening { base } if *base > behind => {
                    return Err(format!("`{name}` starts at {base}, but only {behind} steps are done"));
                }
                _ => {}
            }
        }
        if let Phase::Training(open) = &self.phase
            && open.holder.is_none()
            && self.slots.get(&open.modality).is_some_and(Slot::is_able)
        {
            return Err(format!("the open step is not granted, but `{}` could take it", open.modality));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Input, Outcome};
    use super::super::testing::*;
    use super::*;
    use crate::ids::EvaluationId;
    use crate::spec::{Every, Length};

    #[test]
    fn a_slot_is_given_once_and_only_for_modalities_of_the_job() {
        let mut machine = machine_of(two());
        take(&mut machine, join("audio", "audio"));
        refuse(&mut machine, join("second", "audio"));
        refuse(&mut machine, join("other", "video"));
        refuse(&mut machine, join("audio", "image"));
    }

    #[test]
    fn a_worker_with_another_history_or_other_data_is_refused() {
        let mut machine = machine_of(two());
        take(&mut machine, join("audio", "audio"));
        refuse(&mut machine, prepared("audio", 3));
        refuse(&mut machine, prepared("stranger", 0));
        let none = Input::Prepared { worker: worker("audio"), samples: SplitSizes::default(), steps_done: 0 };
        refuse(&mut machine, none);
        take(&mut machine, prepared("audio", 0));
        take(&mut machine, left("audio"));
        take(&mut machine, join("audio", "audio"));
        let samples = SplitSizes { validation: 6, ..SAMPLES };
        let other = refuse(&mut machine, Input::Prepared { worker: worker("audio"), samples, steps_done: 0 });
        assert_eq!(other.to_string(), "samples.validation: expected 5, as its predecessor had, got 6");
        refuse(&mut machine, prepared("image", 0));
    }

    #[test]
    fn a_worker_that_is_asked_to_stop_finishes_its_step() {
        let mut machine = running(two(), SAMPLES);
        let leaving = |who: &str| Input::Leaving { worker: worker(who) };
        let gone = |who: &str| Effect::Evict { worker: worker(who), why: "it was asked to stop".to_owned() };
        assert_eq!(take(&mut machine, leaving("image")), [gone("image")]);
        refuse(&mut machine, leaving("image"));
        assert!(take(&mut machine, leaving("audio")).is_empty(), "it has the head");
        assert_eq!(contribute(&mut machine, 10).last(), Some(&gone("audio")));
        assert_eq!(machine.worker(&modality("audio")), None);
    }

    #[test]
    fn an_evaluation_restarts_when_a_worker_is_replaced() {
        let mut spec = two();
        spec.evaluation.every = Every::Turns(1);
        let mut machine = running(spec, SAMPLES);
        contribute(&mut machine, 10);
        let evaluation = EvaluationId(0);
        assert_eq!(take(&mut machine, left("image")), [Effect::AbandonEvaluation { evaluation }]);
        refuse(&mut machine, Input::EvaluationFinished { evaluation, score: 0.5 });
        let waiting = machine.waiting(Time(1), |_| 0).expect("it waits").reason;
        let place = "waiting for 1 `image` worker: 0 registered";
        assert_eq!(waiting, format!("turn 1: the evaluation of validation is blocked: {place}"));
        take(&mut machine, join("image", "image"));
        let effects = take(&mut machine, prepared("image", 0));
        assert!(matches!(effects[..], [Effect::Ready { .. }, Effect::Evaluate { evaluation: EvaluationId(1), .. }]));
        let done = Input::EvaluationFinished { evaluation: EvaluationId(1), score: 0.5 };
        assert_eq!(grants(&take(&mut machine, done)), [granted("w-image", 1, 0)]);
    }

    #[test]
    fn a_blocked_job_stops_at_once_when_asked_to_stop_now() {
        let mut spec = two();
        spec.schedule.length = Length::Turns(4);
        let mut machine = running(spec, SAMPLES);
        take(&mut machine, left("audio"));
        assert!(take(&mut machine, Input::Stop).is_empty());
        assert!(take(&mut machine, Input::Stop).is_empty(), "it waits, however often it is asked");
        assert_eq!(take(&mut machine, Input::StopNow), [Effect::Finish(Outcome::Stopped)]);
        refuse(&mut machine, Input::Stop);
    }
}
