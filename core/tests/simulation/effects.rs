//! The simulated shell carries out the effects of the turn machine.

use antiphon_core::head::{Contribution, StepContext};
use antiphon_core::ids::{HeadVersion, MicroShard, ModalityName, Turn, TurnRef, WorkerId};
use antiphon_core::learning_rate;
use antiphon_core::time::{Span, Time};
use antiphon_core::turn::{ContributionHeader, Effect, Input, Progress, ReplayBufferLevel};

use crate::bugs::Bug;
use crate::coordinator::{Coordinator, PendingHead, Refusal, Sent};
use crate::report::{Digest, StepRecord, counts, head_state};
use crate::store::Manifest;
use crate::worker::ToWorker;

impl Coordinator {
    /// Carries out one effect. An error is a state that must never occur.
    pub(super) fn carry_out(&mut self, now: Time, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Assign { worker, .. } => {
                self.send(worker, ToWorker::Assign { term: self.term, restore: self.newest });
            }
            Effect::Started => {}
            Effect::ReportWait => {
                self.seen.insert("a wait was reported");
            }
            Effect::Ready { modality, replayed, .. } => {
                if self.learning.as_ref() == Some(&modality) {
                    self.learning = None;
                }
                if replayed > 0 {
                    self.seen.insert("steps were replayed");
                }
            }
            Effect::ReleaseSlot { worker, why, .. } => {
                self.seen.insert(match () {
                    () if why.contains("no progress") => "a lease expired without progress",
                    () if why.contains("backs off") => "the slot of a worker that backs off was released",
                    () => "a lease expired without heartbeats",
                });
                self.pool.release_slot(&worker);
            }
            Effect::ReclaimSlot { worker } => {
                self.seen.insert("a slot was reclaimed");
                if let Some(modality) = self.machine.modality_of(&worker) {
                    self.pool.reclaim_slot(modality, &worker);
                }
            }
            Effect::Evict { worker, .. } => self.pool.evict(&worker),
            Effect::Grant { worker, turn, progress, .. } => self.grant(worker, turn, progress)?,
            Effect::Replay { worker, turn, progress, .. } => self.replay(worker, turn, progress)?,
            Effect::Apply { turn, modality, progress, alpha } => self.apply(now, &turn, &modality, progress, alpha)?,
            Effect::EndTurn { modality, may_wait: true, .. } => self.waiting_fold = Some(modality),
            Effect::EndTurn { modality, may_wait: false, .. } => self.end_turn(&modality)?,
            Effect::ResetProjector => self.head.reset_projector(),
            Effect::Evaluate { evaluation, split } => {
                self.no_step_is_open("an evaluation")?;
                self.begin_evaluation(evaluation, split);
            }
            Effect::AbandonEvaluation { evaluation } => self.abandon_evaluation(evaluation),
            Effect::Snapshot { turn } => {
                self.no_step_is_open("a checkpoint")?;
                let head = self.head.to_files().map_err(|error| error.to_string())?;
                self.snapshot = Some(PendingHead { turn, head, state: head_state(&self.head)? });
            }
            Effect::SaveFiles { worker, turn } => self.send(worker, ToWorker::SaveFiles { term: self.term, turn }),
            Effect::WriteManifest { turn } => self.write_manifest(turn)?,
            Effect::ForgetHeads { versions } => self.forget(&versions)?,
            Effect::Finish(outcome) => {
                let position = self.machine.position();
                (self.report.outcome, self.report.best) = (Some(outcome), position.best);
                self.report.counts = counts(position);
            }
        }
        Ok(())
    }

    fn grant(&mut self, worker: WorkerId, turn: TurnRef, progress: Progress) -> Result<(), String> {
        match &self.granted {
            // The worker that had the step has lost it.
            Some(open) if (open.turn, open.step) == (turn.turn, turn.step) && open.attempt < turn.attempt => {
                self.seen.insert("a turn was granted again");
            }
            _ => self.no_step_is_open(&format!("a grant to `{worker}`"))?,
        }
        if turn.head_version != self.head.version() {
            return Err(format!("version {} was granted of a head of {}", turn.head_version, self.head.version()));
        }
        let before = HeadVersion(turn.head_version.0.saturating_sub(1));
        let head = match (self.bug, self.heads.get(&before)) {
            (Some(Bug::GrantsTheHeadBefore), Some(before)) => before,
            _ => self.head.head(),
        };
        let head = head.clone();
        self.granted = Some(turn.clone());
        self.send(worker, ToWorker::Grant { turn, head, progress, replay: false });
        Ok(())
    }

    /// Has a worker's encoder replay a step, under the head that was granted for it.
    fn replay(&mut self, worker: WorkerId, turn: TurnRef, progress: Progress) -> Result<(), String> {
        let version = turn.head_version;
        let kept = self.heads.get(&version);
        let head = kept.ok_or_else(|| format!("head {version} is needed for a replay, and was forgotten"))?;
        let head = if self.bug == Some(Bug::ReplaysUnderTheNewestHead) { self.head.head() } else { head }.clone();
        if self.bug == Some(Bug::ReplaysOneTooFew) && turn.turn.0 % 2 == 1 {
            self.next_input(Input::Learned { worker, turn });
            return Ok(());
        }
        let times = if self.bug == Some(Bug::ReplaysOneTooMany) { 2 } else { 1 };
        for _ in 0..times {
            let grant = ToWorker::Grant { turn: turn.clone(), head: head.clone(), progress, replay: true };
            self.send(worker.clone(), grant);
        }
        Ok(())
    }

    /// The tensors are checked in full before the machine sees the header.
    pub(super) fn contribution(
        &mut self,
        now: Time,
        worker: WorkerId,
        mut turn: TurnRef,
        micro_shard: MicroShard,
        contribution: Contribution<f32>,
    ) -> Result<(), Refusal> {
        let (classes, width) = (self.head.head().classes(), self.head.head().width());
        contribution.check(classes, width).map_err(|error| Refusal::Shell(error.to_string()))?;
        if self.bug == Some(Bug::TakesOldTerms) {
            turn.term = self.term;
        }
        let (samples, loss) = (contribution.samples, contribution.loss);
        let modality = self.machine.modality_of(&worker).cloned();
        let holds = self.machine.granted().is_some();
        if holds && modality.is_none() && self.granted.as_ref() == Some(&turn) {
            self.seen.insert("a result came from a worker that had lost its slot");
        }
        let header = ContributionHeader { worker, turn, micro_shard, samples, loss };
        self.incoming = Some(contribution);
        let taken = self.give(now, Input::Contribution(header));
        if let (Err(_), Some(Bug::AppliesRejected), Some(modality)) = (&taken, self.bug, modality)
            && let Some(contribution) = &self.incoming
        {
            let context = StepContext { lr_factor: 1.0, alpha: 1.0 };
            let applied = self.head.apply(&modality, contribution, context);
            applied.map_err(|error| Refusal::Broken(error.to_string()))?;
        }
        self.incoming = None;
        taken
    }

    fn apply(
        &mut self,
        now: Time,
        turn: &TurnRef,
        modality: &ModalityName,
        progress: Progress,
        alpha: f64,
    ) -> Result<(), String> {
        let granted = self.granted.take().filter(|granted| granted == turn);
        granted.ok_or_else(|| format!("{turn:?} was applied but is not the step that is granted"))?;
        if self.is_sequential() {
            self.learning = Some(modality.clone());
        }
        let contribution = self.incoming.take().ok_or("a step was to be applied without a contribution")?;
        self.heads.insert(turn.head_version, self.head.head().clone());
        self.watch_buffer()?;
        let optimizer = &self.job.head.optimizer;
        let lr_factor = learning_rate::factor(&optimizer.schedule, progress.epoch, progress.epochs);
        let times = match self.bug {
            Some(Bug::AppliesTwice) => 2,
            Some(Bug::LosesAContribution) if turn.turn.0 % 5 == 4 => 0,
            _ => 1,
        };
        for _ in 0..times {
            let context = StepContext { lr_factor, alpha };
            self.head.apply(modality, &contribution, context).map_err(|error| error.to_string())?;
        }
        if self.head.version() != turn.head_version.next() {
            return Err(format!("a step of head version {} led to {}", turn.head_version, self.head.version()));
        }
        self.spent = Span(self.spent.0 + self.apply.draw().0);
        self.applied.push((now + self.spent, modality.clone()));
        let record = StepRecord::new(turn.turn, turn.step.0, modality, contribution.loss, &self.head);
        let at = self.report.steps.len();
        let expected = self.naive.report.steps.get(at);
        if expected != Some(&record) || record.version.0 != at as u64 + 1 {
            return Err(format!("step {at} (from 0)\n  simulated: {record:?}\n  naive:     {expected:?}"));
        }
        self.report.steps.push(record);
        Ok(())
    }

    pub(super) fn end_turn(&mut self, modality: &ModalityName) -> Result<(), String> {
        if self.head.open_turn() != Some(modality) {
            return Err(format!("the turn of `{modality}` ended while {:?} had one", self.head.open_turn()));
        }
        self.head.end_turn();
        self.spent = Span(self.spent.0 + self.fold.draw().0);
        Ok(())
    }

    pub(super) fn files_saved(
        &mut self,
        now: Time,
        worker: WorkerId,
        turn: Turn,
        digest: Digest,
    ) -> Result<(), Refusal> {
        if self.bug == Some(Bug::LosesFilesSaved) && turn.0 % 3 == 2 {
            return Ok(());
        }
        let modality = self.machine.modality_of(&worker).cloned();
        let modality = modality.ok_or_else(|| Refusal::Shell("the sender has no slot in this job".to_owned()))?;
        let name = format!("encoder-{modality}");
        let head = self.snapshot.as_mut().filter(|head| head.turn == turn && !head.state.contains_key(&name));
        let head = head.ok_or_else(|| Refusal::Shell(format!("`{name}` of checkpoint {turn} is not waited for")))?;
        // Before the machine decides, because the last file triggers the manifest at once.
        head.state.insert(name.clone(), digest);
        let taken = self.give(now, Input::FilesSaved { worker, turn });
        if let (Err(Refusal::Rejected(_)), Some(head)) = (&taken, &mut self.snapshot) {
            head.state.remove(&name);
        }
        taken
    }

    fn write_manifest(&mut self, turn: Turn) -> Result<(), String> {
        let never = || format!("checkpoint {turn} was never started");
        let snapshot = self.snapshot.take().filter(|head| head.turn == turn);
        let PendingHead { head, state, .. } = snapshot.ok_or_else(never)?;
        let pending = self
            .machine
            .pending_checkpoint()
            .filter(|pending| pending.turn() == turn && pending.has_all_files())
            .ok_or_else(never)?;
        let (position, score) = (pending.position.clone(), pending.score);
        let manifest = Manifest { term: self.term, position, score, head, state };
        self.sent.push((self.spent, Sent::Manifest(Box::new(manifest))));
        Ok(())
    }

    fn forget(&mut self, versions: &[HeadVersion]) -> Result<(), String> {
        for version in versions {
            if self.heads.remove(version).is_none() {
                return Err(format!("head {version} was forgotten twice, or before it was kept"));
            }
        }
        self.watch_buffer()
    }

    /// Tells the machine when the level of the replay buffer has changed.
    fn watch_buffer(&mut self) -> Result<(), String> {
        let turn = self.job.schedule.turn_batches as usize;
        let (kept, at_most) = (self.heads.len(), self.heads_at_most);
        if kept > at_most + turn {
            return Err(format!("{kept} heads are kept, and there is room for {at_most} and a turn of {turn}"));
        }
        let level = if kept + turn > at_most {
            ReplayBufferLevel::Full
        } else if kept > at_most / 2 {
            ReplayBufferLevel::High
        } else {
            ReplayBufferLevel::Normal
        };
        if level != self.buffer_level {
            self.buffer_level = level;
            match level {
                ReplayBufferLevel::Full => self.seen.insert("the replay buffer was full"),
                ReplayBufferLevel::High => self.seen.insert("the replay buffer was nearly full"),
                ReplayBufferLevel::Normal => false,
            };
            self.next_input(Input::ReplayBuffer(level));
        }
        Ok(())
    }

    fn no_step_is_open(&self, what: &str) -> Result<(), String> {
        match (&self.granted, &self.learning) {
            (Some(granted), _) => Err(format!("{what} while {granted:?} is open")),
            (None, Some(modality)) => Err(format!("{what} while `{modality}` learns")),
            (None, None) => Ok(()),
        }
    }

    pub(super) fn send(&mut self, worker: WorkerId, message: ToWorker) {
        self.sent.push((self.spent, Sent::ToWorker(worker, message)));
    }
}
