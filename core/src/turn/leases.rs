//! Leases: a slot is released when its worker sends no heartbeat or makes no progress, and reclaimed when it does
//! again.

use super::machine::{Phase, TurnMachine};
use super::message::{Effect, Rejected};
use super::slot::LeaseExpiry;
use crate::ids::{ModalityName, WorkerId};
use crate::time::Time;

impl TurnMachine {
    pub(super) fn heartbeat(
        &mut self,
        now: Time,
        worker: &WorkerId,
        progress: u64,
        busy: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality = self.modality_with_slot(worker)?;
        // A worker that was granted a step has work to do, whatever it reports.
        let busy = busy || self.granted_to(&modality).is_some();
        if let Some(slot) = self.slots.get_mut(&modality) {
            slot.heard = now;
            slot.busy = busy;
            if slot.progress != progress || !busy {
                (slot.progress, slot.progressed) = (progress, now);
            }
            let recovered = match slot.expired {
                None => false,
                Some(LeaseExpiry::NoHeartbeat) => true,
                Some(LeaseExpiry::NoProgress) => slot.progressed == now,
            };
            if recovered {
                // Its process may have stalled, so the time for progress starts now.
                slot.progressed = now;
                self.reclaim_slot(now, &modality, effects);
            }
        }
        Ok(())
    }

    /// Renews the lease of a worker whose message was accepted: it is connected and makes progress.
    pub(super) fn heard(&mut self, now: Time, worker: &WorkerId, effects: &mut Vec<Effect>) {
        let Some(modality) = self.modality_of(worker).cloned() else { return };
        let Some(slot) = self.slots.get_mut(&modality) else { return };
        (slot.heard, slot.progressed) = (now, now);
        if slot.expired.is_some() {
            self.reclaim_slot(now, &modality, effects);
        }
    }

    pub(super) fn reclaim_slot(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slots.get_mut(modality) else { return };
        slot.expired = None;
        let (worker, able) = (slot.worker.clone(), slot.is_able());
        effects.push(Effect::ReclaimSlot { worker });
        if able {
            self.slot_is_filled(now, modality, effects);
        }
    }

    /// Releases the slots of workers whose lease has expired.
    pub(super) fn expire_leases(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (ttl, turn) = (self.lease_ttl(), self.turn_deadline());
        for modality in self.spec.modalities.iter().map(|modality| &modality.name) {
            let granted = self.granted_to(modality);
            let Some(slot) = self.slots.get_mut(modality) else { continue };
            if let Some((_, expiry)) = slot.deadline(ttl, turn, granted).filter(|(at, _)| *at <= now) {
                slot.expired = Some(expiry);
                let (worker, modality) = (slot.worker.clone(), modality.clone());
                let why = match expiry {
                    LeaseExpiry::NoHeartbeat => {
                        format!("it sent no heartbeat for {} s", now.since(slot.heard).as_secs())
                    }
                    LeaseExpiry::NoProgress => {
                        let since = granted.unwrap_or(Time(0)).max(slot.progressed);
                        format!("it made no progress for {} s", now.since(since).as_secs())
                    }
                };
                effects.push(Effect::ReleaseSlot { worker, modality, why });
            }
        }
    }

    /// Restarts every lease after a time in which the coordinator received no messages. Other deadlines are processed.
    pub(super) fn stall_ended(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for slot in self.slots.values_mut() {
            (slot.heard, slot.progressed) = (now, now);
        }
        self.tick(now, effects);
    }

    /// When the open step was granted, if it was granted to this modality's worker.
    pub(super) fn granted_to(&self, modality: &ModalityName) -> Option<Time> {
        match &self.phase {
            Phase::Training(open) if open.modality == *modality && open.holder.as_ref() == self.worker(modality) => {
                Some(open.granted)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Input;
    use super::super::testing::*;
    use super::*;
    use crate::spec::Every;
    use crate::time::Span;

    #[test]
    fn a_late_contribution_is_accepted_until_the_turn_is_regranted() {
        for late in [true, false] {
            let mut machine = running(two(), SAMPLES);
            contribute(&mut machine, 10);
            contribute(&mut machine, 10);
            let header = open_header(&machine, 10);
            take_at(&mut machine, at(14), beat("image", 1, false));
            let effects = take_at(&mut machine, at(16), Input::Tick);
            let why = "it sent no heartbeat for 15 s".to_owned();
            assert_eq!(effects, [Effect::ReleaseSlot { worker: worker("audio"), modality: modality("audio"), why }]);
            let effects = take_at(&mut machine, at(17), join("second", "audio"));
            let why = "its slot was given to `w-second`".to_owned();
            assert_eq!(effects[0], Effect::Evict { worker: worker("audio"), why });
            let effects = take_at(&mut machine, at(18), prepared("second", 0));
            assert_eq!(grants(&effects), [replay("w-second", 0)]);
            if late {
                let taken = take_at(&mut machine, at(19), Input::Contribution(header.clone()));
                assert_eq!(grants(&taken), [granted("w-image", 3, 0)]);
                let effects = replayed(&mut machine, "second", &effects);
                assert_eq!(grants(&effects), [replay("w-second", 2)], "the late step counts as well");
                let effects = replayed(&mut machine, "second", &effects);
                assert!(matches!(&effects[..], [Effect::Ready { replayed: 2, .. }]), "{effects:?}");
            } else {
                let effects = replayed(&mut machine, "second", &effects);
                assert_eq!(grants(&effects), [granted("w-second", 2, 1)]);
                let refused = refuse(&mut machine, Input::Contribution(header.clone()));
                assert_eq!(refused, Rejected::StaleAttempt { given: 0, current: 1 });
            }
            let learned = Input::Learned { worker: worker("audio"), turn: header.turn };
            assert!(matches!(refuse(&mut machine, learned), Rejected::NoSlot { .. }));
        }
    }

    #[test]
    fn a_heartbeat_reclaims_a_released_slot() {
        let mut machine = running(two(), SAMPLES);
        let (deadline, why) = machine.next_deadline().expect("a lease");
        assert_eq!((deadline.since(Time(1)), why), (Span::from_secs(15), "a lease expires: no heartbeat"));
        let expired = take_at(&mut machine, deadline, Input::Tick);
        assert_eq!(expired.len(), 2, "{expired:?}");
        let waiting = machine.waiting(deadline, |_| 2).expect("no lease is valid").reason;
        let reason = "`audio` worker `w-audio` sends no heartbeat; its slot is released";
        assert_eq!(waiting, format!("turn 0 is blocked: {reason}"));
        let reclaimed = take_at(&mut machine, deadline, beat("audio", 1, true));
        assert_eq!(reclaimed, [Effect::ReclaimSlot { worker: worker("audio") }]);
        assert_eq!(machine.waiting(deadline, |_| 2), None);
        // Image's lease expired while it was not its turn: it is granted when it sends a heartbeat.
        assert!(grants(&contribute(&mut machine, 10)).is_empty());
        let reclaimed = take_at(&mut machine, deadline, beat("image", 1, false));
        assert_eq!(grants(&reclaimed), [granted("w-image", 1, 0)]);
    }

    #[test]
    fn a_heartbeat_after_the_deadline_restarts_the_lease() {
        let mut machine = running(two(), SAMPLES);
        take_at(&mut machine, at(1), beat("audio", 1, true));
        take_at(&mut machine, at(16), Input::Tick);
        take_at(&mut machine, at(100), beat("image", 1, false));
        assert_eq!(
            take_at(&mut machine, at(100), beat("audio", 1, true)),
            [Effect::ReclaimSlot { worker: worker("audio") }]
        );
        // No deadline is in the past: a late one would show that the coordinator was stalled.
        assert_eq!(machine.next_deadline(), Some((at(115), "a lease expires: no heartbeat")));
    }

    #[test]
    fn a_worker_without_progress_is_replaced() {
        let mut machine = running(two(), SAMPLES);
        for second in 1..=70 {
            let progress = if second <= 30 { second } else { 30 };
            // It holds the head, so it has work to do whatever it reports.
            take_at(&mut machine, at(second), beat("audio", progress, second % 2 == 0));
            take_at(&mut machine, at(second), beat("image", 1, false));
            assert!(take_at(&mut machine, at(second), Input::Tick).is_empty(), "second {second}");
        }
        let (deadline, why) = machine.next_deadline().expect("the turn's");
        assert_eq!((deadline, why), (at(85), "a lease expires: no heartbeat"));
        take_at(&mut machine, at(85), beat("image", 1, false));
        take_at(&mut machine, at(85), beat("audio", 30, true));
        assert_eq!(machine.next_deadline(), Some((at(90), "a lease expires: no progress")));
        let effects = take_at(&mut machine, at(90), Input::Tick);
        let why = "it made no progress for 60 s".to_owned();
        assert_eq!(effects, [Effect::ReleaseSlot { worker: worker("audio"), modality: modality("audio"), why }]);
        assert!(take_at(&mut machine, at(91), beat("audio", 30, true)).is_empty(), "a sign of life is not enough");
        assert_eq!(
            take_at(&mut machine, at(92), beat("audio", 31, true)),
            [Effect::ReclaimSlot { worker: worker("audio") }]
        );
    }

    #[test]
    fn an_evaluation_that_waits_for_a_silent_worker_says_so() {
        let mut spec = two();
        spec.evaluation.every = Every::Turns(1);
        let mut machine = running(spec, SAMPLES);
        contribute(&mut machine, 10);
        assert_eq!(machine.waiting(Time(1), |_| 1), None);
        take_at(&mut machine, at(14), beat("audio", 1, true));
        take_at(&mut machine, at(16), Input::Tick);
        let waiting = machine.waiting(at(16), |_| 1).expect("it waits").reason;
        let place = "`image` worker `w-image` sends no heartbeat; its slot is released";
        assert_eq!(waiting, format!("turn 1: the evaluation of validation is blocked: {place}"));
        take_at(&mut machine, at(17), beat("image", 1, true));
        assert_eq!(machine.waiting(at(17), |_| 1), None);
    }
}
