//! Workers that report a failure. A permanent failure fails the job; a transient one is retried.
//!
//! Another free worker takes the first retry at once. Without one, the same worker retries after a back-off in which
//! its slot is released. If a second worker fails too, the cause is not one worker: every worker waits for a longer
//! back-off. The third failure at the same step fails the job. A worker that cannot open data which another worker has
//! opened for this job is itself the cause, whatever it reports: it is retried with a growing back-off, and does not
//! fail the job.

use super::failures::Failures;
use super::machine::TurnMachine;
use super::message::{Effect, Outcome, Rejected};
use super::slot::{Slot, SlotState};
use crate::ids::{ModalityName, WorkerId};
use crate::time::{Span, Time};

/// The number of transient failures at the same step that fails the job.
const MOST_FAILURES: u32 = 3;

/// The first back-off after a failure, as a fraction of the lease: 1 s for the default lease. Each further one is
/// [`BACKOFF_GROWTH`] times as long.
const FIRST_BACKOFF: f64 = 1.0 / 15.0;
const BACKOFF_GROWTH: f64 = 4.0;
/// The back-off grows at most this many times: to about a minute for the default lease.
const MOST_GROWTHS: u32 = 3;

impl TurnMachine {
    pub(super) fn worker_failed(
        &mut self,
        now: Time,
        worker: &WorkerId,
        reason: &str,
        transient: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality = self.modality_with_slot(worker)?;
        let steps_done = self.steps_done(&modality);
        let before = self.failures.get(&modality).filter(|before| before.steps_done == steps_done);
        let (all, counted) = before.map_or((0, 0), |before| (before.all, before.counted));
        let own_fault = !transient && self.opens_what_was_opened(&modality);
        let (all, counted) = (all.saturating_add(1), counted + u32::from(!own_fault));
        if !own_fault && (!transient || counted >= MOST_FAILURES) {
            let times = if transient { format!(" ({counted} times in a row)") } else { String::new() };
            self.empty_slot(&modality, effects);
            let reason = format!("`{modality}` worker `{worker}`: {reason}{times}");
            self.finish(Outcome::Failed { reason }, effects);
            return Ok(());
        }
        let general = before.is_some_and(|before| before.general || !own_fault || before.worker != *worker);
        let growth = BACKOFF_GROWTH.powi((all - 1).min(MOST_GROWTHS).cast_signed());
        let until = now + Span::from_secs_f64(self.spec.schedule.lease_ttl * FIRST_BACKOFF * growth);
        let (worker_id, reason_told) = (worker.clone(), reason.to_owned());
        let failed = Failures { steps_done, all, counted, general, worker: worker_id, reason: reason_told, until };
        self.failures.insert(modality.clone(), failed);
        self.revoke_grant(worker);
        self.empty_slot(&modality, effects);
        effects.push(Effect::Evict { worker: worker.clone(), why: reason.to_owned() });
        Ok(())
    }

    /// Whether this slot's worker is still opening its data and encoder, and another worker has opened them for this
    /// job before.
    fn opens_what_was_opened(&self, modality: &ModalityName) -> bool {
        let opens = self.slots.get(modality).is_some_and(|slot| matches!(slot.state, SlotState::Opening { .. }));
        opens && self.samples.contains_key(modality)
    }

    /// The end of this worker's back-off, if it backs off.
    pub(super) fn backoff_of(&self, now: Time, worker: &WorkerId, modality: &ModalityName) -> Option<Time> {
        let failed = self.failures.get(modality)?;
        ((failed.worker == *worker || failed.general) && failed.until > now).then_some(failed.until)
    }

    /// Whether the worker in this slot backs off, and another worker would not.
    pub(super) fn others_may_try(&self, modality: &ModalityName) -> bool {
        let backs_off = self.slots.get(modality).is_some_and(|slot| slot.backs_off_until().is_some());
        backs_off && self.failures.get(modality).is_some_and(|failed| !failed.general)
    }

    /// Releases the slot of a worker that backs off, if another worker may try.
    pub(super) fn release_meanwhile(&self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        if let (true, Some(failed)) = (self.others_may_try(modality), self.failures.get(modality)) {
            let (worker, modality) = (failed.worker.clone(), modality.clone());
            let why = format!("it failed and backs off: {}", failed.reason);
            effects.push(Effect::ReleaseSlot { worker, modality, why });
        }
    }

    /// Assigns the job again to workers whose back-off is over.
    pub(super) fn end_backoffs(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let released: Vec<ModalityName> =
            self.slots.keys().filter(|modality| self.others_may_try(modality)).cloned().collect();
        for (modality, slot) in &mut self.slots {
            if slot.backs_off_until().is_some_and(|until| until <= now) {
                let (worker, lease, base) = (slot.worker.clone(), slot.lease, self.history.base(modality));
                *slot = Slot::new(worker.clone(), lease, SlotState::Opening { base }, now);
                if released.contains(modality) {
                    effects.push(Effect::ReclaimSlot { worker: worker.clone() });
                }
                effects.push(Effect::Assign { worker, modality: modality.clone(), lease });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Input;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_permanent_failure_or_three_transient_ones_fail_the_job() {
        let mut machine = running(two(), SAMPLES);
        let mut hopeless = machine.clone();
        let finished = take(&mut hopeless, failed("image", false));
        let reason = "`image` worker `w-image`: the store does not answer".to_owned();
        assert_eq!(finished, [Effect::Finish(Outcome::Failed { reason })]);

        for number in 0..2 {
            let evicted = take(&mut machine, failed("image", true));
            assert!(matches!(&evicted[..], [Effect::Evict { .. }]), "{evicted:?}");
            take(&mut machine, join(&format!("image-{number}"), "image"));
            take(&mut machine, left(&format!("image-{number}")));
            take(&mut machine, join("image", "image"));
        }
        let finished = take(&mut machine, failed("image", true));
        let reason = "`image` worker `w-image`: the store does not answer (3 times in a row)".to_owned();
        assert_eq!(finished, [Effect::Finish(Outcome::Failed { reason })]);
    }

    #[test]
    fn a_failed_worker_backs_off_while_another_takes_its_slot() {
        let mut machine = running(two(), SAMPLES);
        take_at(&mut machine, at(10), failed("image", true));
        let mut spare = machine.clone();
        let assigned = take_at(&mut spare, at(10), join("spare", "image"));
        assert!(matches!(&assigned[..], [Effect::Assign { .. }]), "{assigned:?}");

        let released = take_at(&mut machine, at(10), join("image", "image"));
        let why = "it failed and backs off: the store does not answer".to_owned();
        assert_eq!(released, [Effect::ReleaseSlot { worker: worker("image"), modality: modality("image"), why }]);
        refuse(&mut machine, prepared("image", 0));
        let mut spare = machine.clone();
        let given = take_at(&mut spare, at(10), join("spare", "image"));
        let [Effect::Evict { worker: evicted, why }, Effect::Assign { worker: assigned, .. }] = &given[..] else {
            panic!("another one is tried at once: {given:?}")
        };
        assert_eq!((evicted.as_str(), assigned.as_str()), ("w-image", "w-spare"));
        assert_eq!(why, "its slot was given to `w-spare`");

        take_at(&mut machine, at(10), left("audio"));
        let waiting = machine.waiting(at(10), |_| 1).expect("it waits").reason;
        assert!(waiting.starts_with("turn 0 is blocked: waiting for 1 `audio` worker"), "{waiting}");
        assert_eq!(machine.next_deadline(), Some((at(11), "a back-off ends")));
        assert_eq!(take_at(&mut machine, Time(10_999_999), Input::Tick), []);
        let assigned = take_at(&mut machine, at(11), Input::Tick);
        assert!(matches!(&assigned[..], [Effect::ReclaimSlot { .. }, Effect::Assign { .. }]), "{assigned:?}");
        refuse(&mut machine, join("spare", "image"));
    }

    #[test]
    fn when_two_workers_fail_all_of_them_back_off_longer() {
        let mut machine = running(two(), SAMPLES);
        take_at(&mut machine, at(2), failed("image", true));
        take_at(&mut machine, at(2), join("spare", "image"));
        take_at(&mut machine, at(2), failed("spare", true));
        for who in ["image", "spare", "third"] {
            let mut machine = machine.clone();
            assert_eq!(take_at(&mut machine, at(3), join(who, "image")), [], "{who}");
            refuse(&mut machine, join("fourth", "image"));
            refuse(&mut machine, prepared(who, 0));
            assert_eq!(take_at(&mut machine, Time(5_999_999), Input::Tick), []);
            assert_eq!(machine.next_deadline(), Some((at(6), "a back-off ends")), "four times as long");
            let assigned = take_at(&mut machine, at(6), Input::Tick);
            assert!(matches!(&assigned[..], [Effect::Assign { .. }]), "{assigned:?}");
        }
        let assigned = take_at(&mut machine, at(7), join("image", "image"));
        assert!(matches!(&assigned[..], [Effect::Assign { .. }]), "{assigned:?}");
    }

    #[test]
    fn a_misplaced_worker_backs_off_and_fails_no_job() {
        let mut machine = running(two(), SAMPLES);
        take_at(&mut machine, at(2), left("image"));
        take_at(&mut machine, at(2), join("misplaced", "image"));
        let mut now = at(2);
        for pause in [1, 4, 16, 64, 64] {
            let evicted = take_at(&mut machine, now, failed("misplaced", false));
            assert!(matches!(&evicted[..], [Effect::Evict { .. }]), "{evicted:?}");
            let released = take_at(&mut machine, now, join("misplaced", "image"));
            assert!(matches!(&released[..], [Effect::ReleaseSlot { .. }]), "{released:?}");
            let mut good = machine.clone();
            let given = take_at(&mut good, now, join("good", "image"));
            assert!(
                matches!(&given[..], [Effect::Evict { .. }, Effect::Assign { .. }]),
                "it is tried at once: {given:?}"
            );
            now = now + Span::from_secs(pause);
            assert_eq!(machine.slots[&modality("image")].backs_off_until(), Some(now));
            take_at(&mut machine, now, beat("audio", 9, false));
            let assigned = take_at(&mut machine, now, Input::Tick);
            assert!(assigned.iter().any(|effect| matches!(effect, Effect::Assign { .. })), "{assigned:?}");
        }
        // Two that cannot: it may be the data, and no worker is tried before the back-off is over.
        take_at(&mut machine, now, failed("misplaced", false));
        take_at(&mut machine, now, join("lost", "image"));
        take_at(&mut machine, now, failed("lost", false));
        take_at(&mut machine, now, join("good", "image"));
        assert_eq!(machine.slots[&modality("image")].backs_off_until(), Some(now + Span::from_secs(64)));

        // Another worker would fail in the same way.
        let mut machine = machine_of(two());
        take(&mut machine, join("image", "image"));
        let finished = take(&mut machine, failed("image", false));
        assert!(matches!(&finished[..], [Effect::Finish(Outcome::Failed { .. })]), "{finished:?}");
    }

    #[test]
    fn a_job_that_waits_for_a_back_off_says_so() {
        let mut machine = running(two(), SAMPLES);
        take_at(&mut machine, at(10), failed("audio", true));
        take_at(&mut machine, at(10), join("audio", "audio"));
        let waiting = machine.waiting(at(10), |_| 1).expect("it waits").reason;
        let place = "`audio` worker `w-audio` failed and will be retried: the store does not answer";
        assert_eq!(waiting, format!("turn 0 is blocked: {place}"));
        take_at(&mut machine, at(11), Input::Tick);
        let waiting = machine.waiting(at(11), |_| 1).expect("it waits").reason;
        assert_eq!(waiting, "turn 0 is blocked: `audio` worker `w-audio` is opening its data");
    }
}
