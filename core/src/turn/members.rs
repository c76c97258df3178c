//! Places and who has them: joining, taking steps again, lapsing, leaving.

use serde::{Deserialize, Serialize};

use super::{Duty, Effect, PastStep, Phase, Rejected, SplitSizes, TurnMachine};
use crate::ids::{Attempt, Lease, ModalityName, Step, Turn, WorkerId};
use crate::time::{Span, Time};

/// A worker in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) lease: Lease,
    pub(super) standing: Standing,
    /// The step whose contribution the head has taken and from which the encoder is still learning, as far as it has said.
    pub(super) learning: Option<(Turn, Step)>,
    /// When it gave a sign of life, and when it had done something since the sign before.
    heard: Time,
    progressed: Time,
    /// What it counts its progress by, and whether it has something to do.
    progress: u64,
    busy: bool,
    /// Its place is offered to others.
    pub(super) lapse: Option<Lapse>,
    /// It was asked to stop, and gives its place up after the open step.
    leaving: bool,
}

/// How far a worker has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It has failed, and is assigned the job again then.
    Paused { until: Time },
    /// It opens its data and loads its encoder, as it was after `base` steps.
    Opening { base: u64 },
    /// Its encoder has taken `done` of the steps that the head has; `at` is the one under way.
    Replaying { base: u64, done: u64, at: Option<PastStep> },
    /// Its encoder is where the head is.
    Ready,
}

/// Why a place is offered to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Lapse {
    /// No sign of life.
    Silent,
    /// Signs of life, but nothing done.
    Stuck,
}

impl Member {
    pub(super) fn new(worker: WorkerId, lease: Lease, standing: Standing, now: Time) -> Self {
        Self {
            worker,
            lease,
            standing,
            learning: None,
            heard: now,
            progressed: now,
            progress: 0,
            busy: false,
            lapse: None,
            leaving: false,
        }
    }

    /// Whether its encoder is where the head is.
    pub(super) fn is_ready(&self) -> bool {
        self.standing == Standing::Ready
    }

    /// Whether it can be given the head.
    pub(super) fn is_able(&self) -> bool {
        self.is_ready() && self.lapse.is_none() && !self.leaving
    }

    /// Steps that its encoder has behind it, where the head has taken `behind` of this modality; none while it is loaded.
    pub(super) fn steps_behind(&self, behind: u64) -> Option<u64> {
        match self.standing {
            Standing::Paused { .. } | Standing::Opening { .. } => None,
            Standing::Replaying { done, .. } => Some(done),
            Standing::Ready => Some(behind),
        }
    }

    /// Steps before which it needs none again; none where it needs none at all.
    pub(super) fn begins_at(&self) -> Option<u64> {
        match self.standing {
            Standing::Opening { base } => Some(base),
            Standing::Replaying { done, .. } => Some(done),
            Standing::Paused { .. } | Standing::Ready => None,
        }
    }

    /// Until when it is left alone.
    pub(super) fn paused(&self) -> Option<Time> {
        match self.standing {
            Standing::Paused { until } => Some(until),
            _ => None,
        }
    }

    /// When its place is offered to others unless it gives a sign of life, or of progress if it has something to do.
    pub(super) fn deadline(&self, ttl: Span, turn: Span, granted: Option<Time>) -> Option<(Time, Lapse)> {
        // Nothing is heard of whoever has not been assigned anything yet.
        if self.lapse.is_some() || self.paused().is_some() {
            return None;
        }
        let silent = (self.heard + ttl, Lapse::Silent);
        // How long it takes to open data depends on the data, not on a turn.
        let works = !matches!(self.standing, Standing::Opening { .. }) && (self.busy || granted.is_some());
        let stuck = works.then(|| (granted.unwrap_or(Time(0)).max(self.progressed) + turn, Lapse::Stuck));
        Some(stuck.filter(|stuck| stuck.0 < silent.0).unwrap_or(silent))
    }
}

impl TurnMachine {
    /// The pool has a worker for a place that is empty, or on offer.
    pub(super) fn join(
        &mut self,
        now: Time,
        worker: WorkerId,
        modality: ModalityName,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let known = self.spec.modalities.iter().any(|m| m.name == modality);
        let taken = self.members.get(&modality).is_some_and(|member| member.lapse.is_none());
        let taken = taken && !self.is_another_tried(&modality);
        if !known || taken || self.modality_of(&worker).is_some() {
            return Err(Rejected::NoPlace { modality });
        }
        if let Some(before) = self.members.get(&modality).map(|member| member.worker.clone()) {
            let why = format!("its place was given to `{worker}`");
            self.give_up_place(&modality, effects);
            effects.push(Effect::Evict { worker: before, why });
        }
        let lease = self.next_lease;
        self.next_lease = lease.next();
        let paused = self.pause_of(now, &worker, &modality);
        let standing = match paused {
            Some(until) => Standing::Paused { until },
            None => Standing::Opening { base: self.history.base(&modality) },
        };
        self.members.insert(modality.clone(), Member::new(worker.clone(), lease, standing, now));
        match paused {
            Some(_) => self.offer_meanwhile(&modality, effects),
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
        let modality = self.modality_of_member(worker)?;
        let Some(Member { standing: Standing::Opening { base }, .. }) = self.members.get(&modality) else {
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
                return Err(differs(what, format!("{before}, as the worker before it had"), given));
            }
        }
        self.samples.insert(modality.clone(), samples);
        if let Some(member) = self.members.get_mut(&modality) {
            member.standing = Standing::Replaying { base, done: steps_done, at: None };
        }
        self.heard(now, worker, effects);
        self.replay_on(now, &modality, effects);
        Ok(())
    }

    /// The encoder has taken this step again.
    pub(super) fn replayed(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        if let Some(Member { standing: Standing::Replaying { done, at, .. }, .. }) = self.members.get_mut(modality) {
            *done += 1;
            *at = None;
        }
        self.replay_on(now, modality, effects);
    }

    /// The step that a worker is taking again.
    pub(super) fn replays(&self, modality: &ModalityName) -> Option<PastStep> {
        match self.members.get(modality)?.standing {
            Standing::Replaying { at, .. } => at,
            Standing::Paused { .. } | Standing::Opening { .. } | Standing::Ready => None,
        }
    }

    /// Has the next step taken again, or goes on with what waited for the last of them.
    fn replay_on(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        self.ask_for_part(modality, effects);
        let behind = self.steps_done(modality);
        let Some(member) = self.members.get_mut(modality) else { return };
        let Standing::Replaying { base, done, at } = &mut member.standing else { return };
        if let Some(past) = (*done < behind).then(|| self.history.step(modality, *done)).flatten() {
            *at = Some(past);
            let (worker, lease) = (member.worker.clone(), member.lease);
            let turn = self.reference(past.turn, past.step, Attempt(0), past.head_version);
            effects.push(Effect::Replay { worker, turn, lease, progress: past.progress });
            return;
        }
        let (worker, replayed) = (member.worker.clone(), *done - *base);
        member.standing = Standing::Ready;
        self.forget_heads(effects);
        effects.push(Effect::Ready { worker, modality: modality.clone(), replayed });
        self.place_is_filled(now, modality, effects);
    }

    /// A worker is in its place and able: goes on with what waited for it.
    fn place_is_filled(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Gathering => {
                if self.everybody_is_ready() {
                    effects.push(Effect::Started);
                    self.begin(now, effects);
                }
            }
            Phase::Training(open) if open.modality == *modality => {
                let open = open.clone();
                let holds = open.holder.as_ref() == self.worker(modality);
                match open.applied {
                    // The encoder has learnt from the open step by taking it again.
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

    pub(super) fn heartbeat(
        &mut self,
        now: Time,
        worker: &WorkerId,
        progress: u64,
        busy: bool,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality = self.modality_of_member(worker)?;
        // Whoever has the head has something to do, whatever it says.
        let busy = busy || self.granted_to(&modality).is_some();
        if let Some(member) = self.members.get_mut(&modality) {
            member.heard = now;
            member.busy = busy;
            if member.progress != progress || !busy {
                (member.progress, member.progressed) = (progress, now);
            }
            let recovered = match member.lapse {
                None => false,
                Some(Lapse::Silent) => true,
                Some(Lapse::Stuck) => member.progressed == now,
            };
            if recovered {
                // It may have stood still: what it could not do meanwhile is not held against it.
                member.progressed = now;
                self.keep_place(now, &modality, effects);
            }
        }
        Ok(())
    }

    /// A worker has said something that was taken: it lives, and gets on.
    pub(super) fn heard(&mut self, now: Time, worker: &WorkerId, effects: &mut Vec<Effect>) {
        let Some(modality) = self.modality_of(worker).cloned() else { return };
        let Some(member) = self.members.get_mut(&modality) else { return };
        (member.heard, member.progressed) = (now, now);
        if member.lapse.is_some() {
            self.keep_place(now, &modality, effects);
        }
    }

    fn keep_place(&mut self, now: Time, modality: &ModalityName, effects: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(modality) else { return };
        member.lapse = None;
        let (worker, able) = (member.worker.clone(), member.is_able());
        effects.push(Effect::Keep { worker });
        if able {
            self.place_is_filled(now, modality, effects);
        }
    }

    /// Offers the places of those who gave no sign of life, or of progress, for too long.
    pub(super) fn lapse(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let (ttl, turn) = (self.lease_ttl(), self.turn_deadline());
        for modality in self.spec.modalities.iter().map(|modality| &modality.name) {
            let granted = self.granted_to(modality);
            let Some(member) = self.members.get_mut(modality) else { continue };
            if let Some((_, lapse)) = member.deadline(ttl, turn, granted).filter(|(at, _)| *at <= now) {
                member.lapse = Some(lapse);
                let (worker, modality) = (member.worker.clone(), modality.clone());
                let why = match lapse {
                    Lapse::Silent => format!("it gave no sign of life for {} s", now.since(member.heard).as_secs()),
                    Lapse::Stuck => {
                        let since = granted.unwrap_or(Time(0)).max(member.progressed);
                        format!("it got nothing done for {} s", now.since(since).as_secs())
                    }
                };
                effects.push(Effect::Offer { worker, modality, why });
            }
        }
    }

    /// Nobody could be heard until now: everybody's time begins anew. What else was due is done.
    pub(super) fn awake(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for member in self.members.values_mut() {
            (member.heard, member.progressed) = (now, now);
        }
        self.tick(now, effects);
    }

    /// When the open step was granted, if this modality's worker has it.
    pub(super) fn granted_to(&self, modality: &ModalityName) -> Option<Time> {
        match &self.phase {
            Phase::Training(open) if open.modality == *modality && open.holder.as_ref() == self.worker(modality) => {
                Some(open.granted)
            }
            _ => None,
        }
    }

    /// A worker was asked to stop: it gives its place up, after the open step if it has that.
    pub(super) fn leaving(&mut self, now: Time, worker: &WorkerId, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality = self.modality_of_member(worker)?;
        self.heard(now, worker, effects);
        if self.granted_to(&modality).is_some() {
            if let Some(member) = self.members.get_mut(&modality) {
                member.leaving = true;
            }
        } else {
            self.let_go(&modality, effects);
        }
        Ok(())
    }

    /// Lets a worker go that was asked to stop and has done what it had begun.
    pub(super) fn let_go_if_leaving(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        if self.members.get(modality).is_some_and(|member| member.leaving) {
            self.let_go(modality, effects);
        }
    }

    fn let_go(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        let Some(worker) = self.worker(modality).cloned() else { return };
        self.give_up_place(modality, effects);
        self.nobody_holds(&worker);
        effects.push(Effect::Evict { worker, why: "it was asked to stop".to_owned() });
    }

    /// A worker's connection is gone, and with it whatever it had to say.
    pub(super) fn left(&mut self, worker: &WorkerId, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        self.not_finished()?;
        let was_holder = self.nobody_holds(worker);
        match self.modality_of(worker).cloned() {
            Some(modality) => self.give_up_place(&modality, effects),
            None if was_holder => {}
            None => return Err(Rejected::NotAMember { worker: worker.clone() }),
        }
        Ok(())
    }

    /// Empties a place. What its worker still sends of the open step may be taken: see [`Self::nobody_holds`].
    pub(super) fn give_up_place(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        self.members.remove(modality);
        self.part_is_lost(modality);
        if let Phase::Boundary { duties, .. } = &mut self.phase
            && let Some(Duty::Evaluate { evaluation: running @ Some(_), .. }) = duties.front_mut()
            && let Some(evaluation) = running.take()
        {
            effects.push(Effect::AbandonEvaluation { evaluation });
        }
        self.forget_heads(effects);
    }

    /// If this worker has the head, nobody has it any more, and the step is to be granted anew.
    pub(super) fn nobody_holds(&mut self, worker: &WorkerId) -> bool {
        match &mut self.phase {
            Phase::Training(open) if open.holder.as_ref() == Some(worker) => {
                open.holder = None;
                open.attempt = open.attempt.next();
                true
            }
            _ => false,
        }
    }

    /// Whether every modality has a worker whose encoder is where the head is.
    pub(super) fn everybody_is_ready(&self) -> bool {
        self.spec.modalities.iter().all(|m| self.members.get(&m.name).is_some_and(Member::is_ready))
    }

    /// The modality of whoever must have a place.
    pub(super) fn modality_of_member(&self, worker: &WorkerId) -> Result<ModalityName, Rejected> {
        self.modality_of(worker).cloned().ok_or_else(|| Rejected::NotAMember { worker: worker.clone() })
    }

    pub(super) fn check_members(&self) -> Result<(), String> {
        for (name, member) in &self.members {
            let behind = self.steps_done(name);
            match &member.standing {
                Standing::Replaying { done, at, .. } if *done >= behind || at.is_none() => {
                    return Err(format!("`{name}` has {done} of {behind} steps behind it, and takes {at:?} again"));
                }
                Standing::Opening { base } if *base > behind => {
                    return Err(format!("`{name}` begins at {base}, but only {behind} steps are done"));
                }
                _ => {}
            }
        }
        if let Phase::Training(open) = &self.phase
            && open.holder.is_none()
            && self.members.get(&open.modality).is_some_and(Member::is_able)
        {
            return Err(format!("nobody has the head, and `{}` could", open.modality));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
