//! Workers that say that they cannot go on: what would come again ends the job, what may pass is tried again. The first time by
//! another worker at once, and by the same one after a pause, in which its place is on offer. When another one has failed too it
//! is not the worker's fault, and nobody is tried before a longer pause is over. Who cannot open what another one has opened for
//! this job before is at fault itself, whatever it says: it ends no job, and is tried less and less often.

use serde::{Deserialize, Serialize};

use super::members::{Member, Standing};
use super::{Effect, Outcome, Rejected, TurnMachine};
use crate::ids::{ModalityName, WorkerId};
use crate::time::{Span, Time};

/// How often in a row a modality's workers may fail at the same step for reasons that may pass, before the job does.
const MOST_FAILURES: u32 = 3;

/// The pause before a worker that has failed is tried again, as a share of the lease: 1 s of its default; every further one is
/// [`PAUSE_GROWS`] times as long.
const FIRST_PAUSE: f64 = 1.0 / 15.0;
const PAUSE_GROWS: f64 = 4.0;
/// But for no more than this many growths: a minute of the default.
const MOST_GROWTHS: u32 = 3;

/// Failures of a modality's workers that came at the same step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    steps_done: u64,
    /// All of them, and those that count against the job.
    all: u32,
    counted: u32,
    /// It is not one worker's fault.
    general: bool,
    /// The last of them: whose, why, and until when that worker is left alone, or from the second on any.
    worker: WorkerId,
    pub(super) reason: String,
    until: Time,
}

impl TurnMachine {
    pub(super) fn worker_failed(
        &mut self,
        now: Time,
        worker: &WorkerId,
        reason: &str,
        again: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality = self.modality_of_member(worker)?;
        let steps_done = self.steps_done(&modality);
        let before = self.failures.get(&modality).filter(|before| before.steps_done == steps_done);
        let (all, counted) = before.map_or((0, 0), |before| (before.all, before.counted));
        let own_fault = !again && self.opens_what_was_opened(&modality);
        let (all, counted) = (all.saturating_add(1), counted + u32::from(!own_fault));
        if !own_fault && (!again || counted >= MOST_FAILURES) {
            let times = if again { format!(" ({counted} times in a row)") } else { String::new() };
            self.give_up_place(&modality, effects);
            let reason = format!("`{modality}` worker `{worker}`: {reason}{times}");
            self.finish(Outcome::Failed { reason }, effects);
            return Ok(());
        }
        let general = before.is_some_and(|before| before.general || !own_fault || before.worker != *worker);
        let growth = PAUSE_GROWS.powi((all - 1).min(MOST_GROWTHS).cast_signed());
        let until = now + Span::from_secs_f64(self.spec.schedule.lease_ttl * FIRST_PAUSE * growth);
        let (worker_id, reason_told) = (worker.clone(), reason.to_owned());
        let failed = Failures { steps_done, all, counted, general, worker: worker_id, reason: reason_told, until };
        self.failures.insert(modality.clone(), failed);
        self.nobody_holds(worker);
        self.give_up_place(&modality, effects);
        effects.push(Effect::Evict { worker: worker.clone(), why: reason.to_owned() });
        Ok(())
    }

    /// Whether this place's worker has yet to open its data and its encoder, and another one has done so for this job.
    fn opens_what_was_opened(&self, modality: &ModalityName) -> bool {
        let opens =
            self.members.get(modality).is_some_and(|member| matches!(member.standing, Standing::Opening { .. }));
        opens && self.samples.contains_key(modality)
    }

    /// Until when this worker is left alone, if it is.
    pub(super) fn pause_of(&self, now: Time, worker: &WorkerId, modality: &ModalityName) -> Option<Time> {
        let failed = self.failures.get(modality)?;
        ((failed.worker == *worker || failed.general) && failed.until > now).then_some(failed.until)
    }

    /// Whether this place is held by somebody who is left alone, and others would not be.
    pub(super) fn is_another_tried(&self, modality: &ModalityName) -> bool {
        let pauses = self.members.get(modality).is_some_and(|member| member.paused().is_some());
        pauses && self.failures.get(modality).is_some_and(|failed| !failed.general)
    }

    /// Offers the place of whoever is left alone, if others are not.
    pub(super) fn offer_meanwhile(&self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        if let (true, Some(failed)) = (self.is_another_tried(modality), self.failures.get(modality)) {
            let (worker, modality) = (failed.worker.clone(), modality.clone());
            let why = format!("it has failed, and is left alone for a while: {}", failed.reason);
            effects.push(Effect::Offer { worker, modality, why });
        }
    }

    /// Tries those again whose pause is over.
    pub(super) fn end_pauses(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let offered: Vec<ModalityName> =
            self.members.keys().filter(|modality| self.is_another_tried(modality)).cloned().collect();
        for (modality, member) in &mut self.members {
            if member.paused().is_some_and(|until| until <= now) {
                let (worker, lease, base) = (member.worker.clone(), member.lease, self.history.base(modality));
                *member = Member::new(worker.clone(), lease, Standing::Opening { base }, now);
                if offered.contains(modality) {
                    effects.push(Effect::Keep { worker: worker.clone() });
                }
                effects.push(Effect::Assign { worker, modality: modality.clone(), lease });
            }
        }
    }
}
