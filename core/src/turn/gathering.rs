//! Gathering: the job waits until every modality has a worker, and every worker its data and encoder.

use super::{Effect, Member, Outcome, Phase, Rejected, SplitSizes, TurnMachine, Waiting};
use crate::ids::{ModalityName, WorkerId};
use crate::time::Time;

impl TurnMachine {
    pub(super) fn join(
        &mut self,
        worker: WorkerId,
        modality: ModalityName,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        let Phase::Gathering { .. } = &self.phase else { return Err(self.unexpected()) };
        let known = self.spec.modalities.iter().any(|m| m.name == modality);
        if !known || self.members.contains_key(&modality) || self.modality_of(&worker).is_some() {
            return Err(Rejected::NoPlace { modality });
        }
        let lease = self.next_lease;
        self.next_lease = lease.next();
        self.members.insert(modality.clone(), Member { worker: worker.clone(), lease, samples: None, learning: None });
        effects.push(Effect::Assign { worker, modality, lease });
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
        let Phase::Gathering { .. } = &self.phase else { return Err(self.unexpected()) };
        let modality =
            self.modality_of(worker).cloned().ok_or_else(|| Rejected::NotAMember { worker: worker.clone() })?;
        let expected = self.position.steps_done.get(&modality).copied().unwrap_or(0);
        if steps_done != expected {
            return Err(Rejected::Malformed {
                what: "steps_done",
                expected: expected.to_string(),
                given: steps_done.to_string(),
            });
        }
        if samples.train == 0 {
            return Err(Rejected::Malformed {
                what: "samples.train",
                expected: "at least 1".to_owned(),
                given: "0".to_owned(),
            });
        }
        if let Some(member) = self.members.get_mut(&modality) {
            member.samples = Some(samples);
        }
        let ready = self.spec.modalities.iter().all(|m| self.members.get(&m.name).is_some_and(|m| m.samples.is_some()));
        if ready {
            effects.push(Effect::Started);
            self.begin(now, effects);
        }
        Ok(())
    }

    /// Why the job is not computing; none while it is. `registered` says how many workers of a modality there are, of whichever
    /// job: those of a place that is empty are not free.
    #[must_use]
    pub fn waiting(&self, now: Time, registered: impl Fn(&ModalityName) -> usize) -> Option<Waiting> {
        let Phase::Gathering { since, .. } = &self.phase else { return None };
        let missing = self.spec.modalities.iter().filter(|m| !self.members.contains_key(&m.name)).map(|m| {
            match registered(&m.name) {
                0 => format!("waiting for 1 `{}` worker: 0 registered", m.name),
                n => format!("waiting for 1 `{}` worker: {n} registered, none of them free", m.name),
            }
        });
        let unprepared = self
            .members
            .iter()
            .filter(|(_, member)| member.samples.is_none())
            .map(|(name, member)| format!("`{name}` worker `{}` opens its data", member.worker));
        let reasons: Vec<String> = missing.chain(unprepared).collect();
        Some(Waiting { reason: reasons.join("; "), waited: now.since(*since) })
    }

    pub(super) fn tick(&mut self, now: Time) {
        if let Phase::Gathering { reported, .. } = &mut self.phase {
            *reported = now;
        }
    }

    pub(super) fn stop(&mut self, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        self.not_finished()?;
        self.stop_requested = true;
        if let Phase::Gathering { .. } = self.phase {
            // Nothing has been trained since the last checkpoint, so there is nothing to save.
            self.finish(Outcome::Stopped, effects);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_waiting_job_names_what_it_waits_for() {
        let mut machine = machine(&["audio", "image"]);
        let waiting = machine.waiting(Time(3_000_000), |_| 0).expect("nobody is there");
        assert_eq!(
            waiting.reason,
            "waiting for 1 `audio` worker: 0 registered; waiting for 1 `image` worker: 0 registered"
        );
        assert_eq!(waiting.waited.0, 3_000_000);
        take(&mut machine, Input::Joined { worker: worker("audio"), modality: modality("audio") });
        assert_eq!(
            machine.waiting(Time(0), |_| 2).expect("still waiting").reason,
            "waiting for 1 `image` worker: 2 registered, none of them free; `audio` worker `w-audio` opens its data"
        );
    }

    #[test]
    fn a_place_is_given_once_and_only_for_modalities_of_the_job() {
        let mut machine = machine(&["audio"]);
        take(&mut machine, Input::Joined { worker: worker("audio"), modality: modality("audio") });
        refuse(&mut machine, Input::Joined { worker: worker("second"), modality: modality("audio") });
        refuse(&mut machine, Input::Joined { worker: worker("other"), modality: modality("video") });
    }

    #[test]
    fn a_worker_with_another_history_or_no_data_is_refused() {
        let mut machine = machine(&["audio"]);
        take(&mut machine, Input::Joined { worker: worker("audio"), modality: modality("audio") });
        let samples = SplitSizes { train: 10, ..SplitSizes::default() };
        refuse(&mut machine, Input::Prepared { worker: worker("audio"), samples, steps_done: 3 });
        let none = SplitSizes::default();
        refuse(&mut machine, Input::Prepared { worker: worker("audio"), samples: none, steps_done: 0 });
        refuse(&mut machine, Input::Prepared { worker: worker("stranger"), samples, steps_done: 0 });
    }

    #[test]
    fn a_job_that_has_not_begun_stops_at_once() {
        let mut machine = machine(&["audio"]);
        assert_eq!(take(&mut machine, Input::Stop), [Effect::Finish(Outcome::Stopped)]);
        refuse(&mut machine, Input::Stop);
    }
}
