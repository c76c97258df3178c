//! What a job waits for, since when, and when the machine has to be called next.

use super::machine::{Duty, Phase, TurnMachine};
use super::message::{Effect, Outcome, Rejected, ReplayBufferLevel};
use super::slot::{LeaseExpiry, SlotState};
use super::wait::Wait;
use crate::ids::ModalityName;
use crate::time::{Span, Time};

/// Why a job is not computing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The reason in the job's status, such as `` waiting for 1 `audio` worker: 0 registered ``.
    pub reason: String,
    /// How long the wait has lasted so far.
    pub waited: Span,
}

impl TurnMachine {
    /// Why the job is not computing; none while it is. `registered` gives the number of registered workers of a
    /// modality; while its slot is empty, none of them is free.
    #[must_use]
    pub fn waiting(&self, now: Time, registered: impl Fn(&ModalityName) -> usize) -> Option<Waiting> {
        let wait = self.wait?;
        let turn = self.position.turn;
        let reason = match &self.phase {
            Phase::Gathering => self.unready(&registered),
            Phase::Training(open) => {
                format!("turn {turn} is blocked: {}", self.slot_reason(&open.modality, &registered))
            }
            Phase::Boundary { duties, .. } => match duties.front()? {
                Duty::Evaluate { split, .. } => {
                    format!("turn {turn}: the evaluation of {split} is blocked: {}", self.unready(&registered))
                }
                Duty::Save => format!("turn {turn}: a checkpoint is due; {}", self.checkpoint_waits(&registered)),
                Duty::FreeBuffer => {
                    let waits = self.checkpoint_waits(&registered);
                    format!("turn {turn}: the replay buffer is full until a checkpoint is written; {waits}")
                }
                Duty::Finish(_) => format!("turn {turn}: finishing; {}", self.checkpoint_waits(&registered)),
            },
            Phase::Finished(_) => return None,
        };
        Some(Waiting { reason, waited: now.since(wait.since) })
    }

    /// The reasons of all slots whose worker cannot be granted a step.
    fn unready(&self, registered: &impl Fn(&ModalityName) -> usize) -> String {
        let names = self.spec.modalities.iter().map(|modality| &modality.name);
        let unready = names.filter(|name| self.slots.get(*name).is_none_or(|slot| !slot.is_able()));
        // Empty slots first.
        let (empty, taken): (Vec<_>, Vec<_>) = unready.partition(|name| !self.slots.contains_key(*name));
        let reasons: Vec<String> =
            empty.into_iter().chain(taken).map(|name| self.slot_reason(name, registered)).collect();
        reasons.join("; ")
    }

    /// What the pending checkpoint waits for, and why the workers whose files it needs cannot write them.
    fn checkpoint_waits(&self, registered: &impl Fn(&ModalityName) -> usize) -> String {
        let missing = self.pending_checkpoint.iter().flat_map(|pending| pending.missing());
        let unready = missing.filter(|name| self.slots.get(*name).is_none_or(|slot| !slot.is_able()));
        unready.fold(self.checkpoint_activity(), |told, name| format!("{told}; {}", self.slot_reason(name, registered)))
    }

    fn slot_reason(&self, modality: &ModalityName, registered: &impl Fn(&ModalityName) -> usize) -> String {
        let Some(slot) = self.slots.get(modality) else {
            return match registered(modality) {
                0 => format!("waiting for 1 `{modality}` worker: 0 registered"),
                n => format!("waiting for 1 `{modality}` worker: {n} registered, none free"),
            };
        };
        let named = self.named(modality, Some(&slot.worker));
        match (&slot.state, slot.expired) {
            (_, Some(LeaseExpiry::NoHeartbeat)) => format!("{named} sends no heartbeat; its slot is released"),
            (_, Some(LeaseExpiry::NoProgress)) => format!("{named} makes no progress; its slot is released"),
            (SlotState::BackingOff { .. }, None) => {
                let reason = self.failures.get(modality).map_or("", |failed| failed.reason.as_str());
                format!("{named} failed and will be retried: {reason}")
            }
            (SlotState::Opening { .. }, None) => format!("{named} is opening its data"),
            (SlotState::Replaying { base, done, .. }, None) => {
                let (done, of) = (done - base, self.steps_done(modality) - base);
                format!("{named} is replaying its steps since the last checkpoint, {done} of {of} done")
            }
            (SlotState::Ready, None) => named,
        }
    }

    /// Whether the job's next step needs something that no worker computes now.
    fn waits(&self) -> bool {
        match &self.phase {
            Phase::Gathering => true,
            Phase::Training(open) => {
                open.holder.as_ref() != self.worker(&open.modality)
                    || self.slots.get(&open.modality).is_none_or(|slot| slot.expired.is_some())
            }
            Phase::Boundary { duties, .. } => match duties.front() {
                Some(Duty::Evaluate { evaluation, .. }) => {
                    evaluation.is_none() || self.slots.values().any(|slot| slot.expired.is_some())
                }
                Some(Duty::Save | Duty::FreeBuffer | Duty::Finish(_)) => true,
                None => false,
            },
            Phase::Finished(_) => false,
        }
    }

    /// Records when a wait begins and ends.
    pub(super) fn note_wait(&mut self, now: Time) {
        match (self.waits(), self.wait) {
            (true, None) => self.wait = Some(Wait::starting(now)),
            (false, Some(_)) => self.wait = None,
            _ => {}
        }
    }

    /// When the machine next wants a [`super::Input::Tick`], and why.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Time, &'static str)> {
        if self.outcome().is_some() {
            return None;
        }
        let report = self.wait.map(|wait| (wait.report(), "a wait is reported"));
        let (ttl, turn) = (self.lease_ttl(), self.turn_deadline());
        let expiries = self.slots.iter().filter_map(|(name, slot)| {
            let (at, expiry) = slot.deadline(ttl, turn, self.granted_to(name))?;
            let why = match expiry {
                LeaseExpiry::NoHeartbeat => "a lease expires: no heartbeat",
                LeaseExpiry::NoProgress => "a lease expires: no progress",
            };
            Some((at, why))
        });
        let backoffs = self.slots.values().filter_map(|slot| Some((slot.backs_off_until()?, "a back-off ends")));
        expiries.chain(backoffs).chain(report).min()
    }

    pub(super) fn tick(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.outcome().is_some() {
            return;
        }
        self.expire_leases(now, effects);
        self.end_backoffs(now, effects);
        self.note_wait(now);
        if let Some(wait) = &mut self.wait
            && now >= wait.report()
        {
            wait.reported = now;
            effects.push(Effect::ReportWait);
        }
    }

    /// Stops the job at the next turn boundary, with a checkpoint. A second request changes nothing. With `now`, a
    /// waiting job stops at once and can be resumed from its newest checkpoint. If a pending checkpoint needs no
    /// missing worker, the job completes that checkpoint first.
    pub(super) fn stop(&mut self, now: bool, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        self.not_finished()?;
        let at_once = now && self.wait.is_some() && !self.checkpoint_is_on_its_way();
        self.stop_requested = true;
        // While the job gathers workers, nothing has been trained since the last checkpoint, so there is nothing to
        // save.
        if self.phase == Phase::Gathering || at_once {
            self.finish(Outcome::Stopped, effects);
        }
        Ok(())
    }

    /// The shell reports how full the replay buffer is.
    pub(super) fn set_replay_buffer(
        &mut self,
        now: Time,
        level: ReplayBufferLevel,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        self.replay_buffer = level;
        if let Phase::Boundary { duties, .. } = &self.phase
            && let Some(Duty::FreeBuffer) = duties.front()
        {
            self.begin_duty(now, effects);
        }
        Ok(())
    }

    pub(super) fn lease_ttl(&self) -> Span {
        Span::from_secs_f64(self.spec.schedule.lease_ttl)
    }

    pub(super) fn turn_deadline(&self) -> Span {
        Span::from_secs_f64(self.spec.schedule.turn_deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Input, Outcome, SplitSizes};
    use super::*;

    fn join(name: &str) -> Input {
        Input::Joined { worker: worker(name), modality: modality(name) }
    }

    #[test]
    fn a_waiting_job_names_what_it_waits_for() {
        let mut machine = machine(&["audio", "image"]);
        let waiting = machine.waiting(Time(3_000_000), |_| 0).expect("no worker is there");
        assert_eq!(
            waiting.reason,
            "waiting for 1 `audio` worker: 0 registered; waiting for 1 `image` worker: 0 registered"
        );
        assert_eq!(waiting.waited.0, 3_000_000);
        take(&mut machine, join("audio"));
        assert_eq!(
            machine.waiting(Time(0), |_| 2).expect("still waiting").reason,
            "waiting for 1 `image` worker: 2 registered, none free; `audio` worker `w-audio` is opening its data"
        );
    }

    #[test]
    fn a_checkpoint_that_needs_a_lost_worker_says_so() {
        let mut machine = running(job(&["audio", "image"]), SplitSizes { train: 20, validation: 0, test: 0 });
        take(&mut machine, Input::Stop);
        contribute(&mut machine, 10);
        take(&mut machine, Input::Left { worker: worker("image"), why: "it is gone".to_owned() });
        let finishing = "turn 1: finishing; checkpoint 1 waits for files of `audio` worker `w-audio`, `image`";
        let waiting = machine.waiting(Time(0), |_| 0).expect("it waits").reason;
        assert_eq!(waiting, format!("{finishing}; waiting for 1 `image` worker: 0 registered"));
    }

    #[test]
    fn a_wait_is_reported_soon_and_then_less_often() {
        let mut machine = machine(&["audio"]);
        assert!(take_at(&mut machine, Time(1_999_999), Input::Tick).is_empty());
        for seconds in [2, 4, 8, 16, 32, 64, 124, 184] {
            let at = Time(seconds * 1_000_000);
            assert_eq!(machine.next_deadline(), Some((at, "a wait is reported")));
            assert_eq!(take_at(&mut machine, at, Input::Tick), [Effect::ReportWait]);
        }
    }

    #[test]
    fn a_stalled_coordinator_reports_a_wait_once() {
        let mut machine = machine(&["audio"]);
        assert_eq!(take_at(&mut machine, Time(60_000_000), Input::StallEnded), [Effect::ReportWait]);
        assert_eq!(machine.next_deadline(), Some((Time(120_000_000), "a wait is reported")));
    }

    #[test]
    fn a_job_that_has_not_begun_stops_at_once() {
        let mut machine = machine(&["audio"]);
        assert_eq!(take(&mut machine, Input::Stop), [Effect::Finish(Outcome::Stopped)]);
        refuse(&mut machine, Input::Stop);
    }
}
