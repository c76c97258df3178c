//! Training: one step is granted at a time, and its contribution is accepted once. The next step is granted at once or,
//! in a sequential job, when the encoder has learned.

use super::epoch;
use super::history::PastStep;
use super::machine::{OpenStep, Phase, TurnMachine};
use super::message::{ContributionHeader, Effect, Progress, Rejected};
use super::position::LossSum;
use crate::ids::{Attempt, HeadVersion, MicroShard, ModalityName, Split, Step, Turn, TurnRef, WorkerId};
use crate::learning_rate::alpha_decay;
use crate::spec::{Alpha, Length, ProjectionSpec, Reset, ScheduleMode};
use crate::time::Time;

impl OpenStep {
    /// A step that is not granted yet.
    fn new(modality: ModalityName, step: Step) -> Self {
        Self { modality, step, attempt: Attempt(0), holder: None, granted: Time(0), applied: false }
    }
}

impl TurnMachine {
    /// Starts training at the position, which may already be the end, once every worker is prepared.
    pub(super) fn begin(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.position.plan.cycle.is_empty() {
            self.lay_out_epoch();
        }
        if self.is_complete() {
            self.enter_boundary(now, true, effects);
        } else {
            self.grant_next(now, effects);
        }
    }

    pub(super) fn contribution(
        &mut self,
        now: Time,
        header: &ContributionHeader,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        let open = self.check_contribution(header)?;
        let given = &header.turn;
        // The sender may have lost its slot in the meantime. Then its encoder does not count.
        if let Some(slot) = self.slots.get_mut(&open.modality).filter(|slot| slot.worker == header.worker) {
            slot.learning = Some((given.turn, given.step));
        }
        let progress = self.progress();
        effects.push(Effect::Apply {
            turn: given.clone(),
            modality: open.modality.clone(),
            progress,
            alpha: self.alpha(&open),
        });
        let past = PastStep { turn: given.turn, step: given.step, head_version: given.head_version, progress };
        self.history.push(&open.modality, past);
        let sum = self.position.losses.entry(open.modality.clone()).or_default();
        *sum = LossSum { sum: sum.sum + header.loss, steps: sum.steps + 1 };
        *self.position.steps_done.entry(open.modality.clone()).or_default() += 1;
        self.position.head_version = self.position.head_version.next();
        let modality = open.modality.clone();
        match self.spec.schedule.mode {
            ScheduleMode::Pipelined => {
                self.after_step(now, open, effects);
                self.evict_if_leaving(&modality, effects);
            }
            ScheduleMode::Sequential => self.phase = Phase::Training(OpenStep { applied: true, ..open }),
        }
        self.heard(now, &header.worker, effects);
        Ok(())
    }

    /// A worker's encoder has taken its step, for the first time or as a replay. Whatever waited for it resumes.
    pub(super) fn learned(
        &mut self,
        now: Time,
        worker: &WorkerId,
        turn: &TurnRef,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        if turn.term != self.term {
            return Err(Rejected::StaleTerm { given: turn.term.0, current: self.term.0 });
        }
        self.not_finished()?;
        let modality = self.modality_with_slot(worker)?;
        let step = (turn.turn, turn.step);
        if self.replays(&modality).is_some_and(|past| (past.turn, past.step) == step) {
            self.heard(now, worker, effects);
            self.replayed(now, &modality, effects);
            return Ok(());
        }
        match self.slots.get_mut(&modality) {
            Some(slot) if slot.learning == Some(step) => slot.learning = None,
            _ => return Err(Rejected::NotLearning { turn: turn.turn, step: turn.step.0 }),
        }
        if let Phase::Training(open) = &self.phase
            && open.applied
            && (self.position.turn, open.step) == step
        {
            self.after_step(now, open.clone(), effects);
            self.evict_if_leaving(&modality, effects);
        }
        self.heard(now, worker, effects);
        Ok(())
    }

    /// The head has taken the step and, in a sequential job, the encoder too: grants the next step, or ends the turn.
    pub(super) fn after_step(&mut self, now: Time, open: OpenStep, effects: &mut Vec<Effect>) {
        let turn = self.position.turn;
        if open.step.0 + 1 < self.spec.schedule.turn_batches {
            let next = open.step.next();
            self.grant(now, OpenStep::new(open.modality, next), effects);
            return;
        }
        let end = |may_wait| Effect::EndTurn { turn, modality: open.modality, may_wait };
        self.position.turn = turn.next();
        self.position.turn_in_epoch += 1;
        if self.spec.schedule.mode == ScheduleMode::Pipelined && self.goes_straight_on() {
            // The next worker needs W and b only, so this turn is folded into P while that worker computes.
            self.grant_next(now, effects);
            effects.push(end(self.granted().is_some()));
        } else {
            effects.push(end(false));
            self.after_turn(now, effects);
        }
    }

    /// Checks a contribution's header in full, before anything changes.
    fn check_contribution(&self, header: &ContributionHeader) -> Result<OpenStep, Rejected> {
        let given = &header.turn;
        if given.term != self.term {
            return Err(Rejected::StaleTerm { given: given.term.0, current: self.term.0 });
        }
        let Phase::Training(open) = &self.phase else {
            self.modality_with_slot(&header.worker)?;
            let already = Rejected::AlreadyApplied { turn: given.turn, step: given.step.0 };
            return Err(if given.turn < self.position.turn { already } else { self.unexpected() });
        };
        let holds = open.holder.as_ref() == Some(&header.worker);
        let current = (self.position.turn, open.step);
        // For a worker that lost its slot, the newer attempt is a better reason than the missing slot.
        if (given.turn, given.step) == current && given.attempt < open.attempt {
            return Err(Rejected::StaleAttempt { given: given.attempt.0, current: open.attempt.0 });
        }
        if !holds {
            self.modality_with_slot(&header.worker)?;
        }
        if (given.turn, given.step) < current || (given.turn, given.step) == current && open.applied {
            return Err(Rejected::AlreadyApplied { turn: given.turn, step: given.step.0 });
        }
        if (given.turn, given.step) > current {
            return Err(Rejected::StaleTurn {
                given: given.turn,
                given_step: given.step.0,
                current: current.0,
                current_step: current.1.0,
            });
        }
        if !holds {
            return Err(match &open.holder {
                Some(holder) => Rejected::NotYourTurn { worker: header.worker.clone(), holder: holder.clone() },
                None => Rejected::NotGranted { turn: given.turn, step: given.step.0 },
            });
        }
        if given.attempt != open.attempt {
            return Err(Rejected::StaleAttempt { given: given.attempt.0, current: open.attempt.0 });
        }
        if given.head_version != self.position.head_version {
            let current = self.position.head_version.0;
            return Err(Rejected::StaleHead { given: given.head_version.0, current });
        }
        self.check_batch(header, open)?;
        Ok(open.clone())
    }

    fn check_batch(&self, header: &ContributionHeader, open: &OpenStep) -> Result<(), Rejected> {
        if header.micro_shard != MicroShard::WHOLE {
            let MicroShard { index, count } = header.micro_shard;
            return Err(Rejected::Malformed {
                what: "micro_shard",
                expected: "0 of 1".to_owned(),
                given: format!("{index} of {count}"),
            });
        }
        let expected = epoch::batch_size(
            self.train_samples(&open.modality),
            self.spec.schedule.batch,
            self.position.steps_done.get(&open.modality).copied().unwrap_or(0),
        );
        if u64::from(header.samples) != expected {
            return Err(Rejected::Malformed {
                what: "samples",
                expected: expected.to_string(),
                given: header.samples.to_string(),
            });
        }
        if !header.loss.is_finite() {
            return Err(Rejected::Malformed {
                what: "loss",
                expected: "a finite number".to_owned(),
                given: header.loss.to_string(),
            });
        }
        Ok(())
    }

    /// Opens the first step of the next turn, in a new epoch if the last one is over.
    pub(super) fn grant_next(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.position.turn_in_epoch == self.position.plan.turns() {
            self.position.epoch += 1;
            self.position.turn_in_epoch = 0;
            self.lay_out_epoch();
            if self.resets_projector() {
                effects.push(Effect::ResetProjector);
            }
        }
        let Some(modality) = self.position.plan.modality(self.position.turn_in_epoch).cloned() else { return };
        self.grant(now, OpenStep::new(modality, Step(0)), effects);
    }

    /// Grants the open step to the worker that is in the slot now.
    pub(super) fn grant_again(&mut self, now: Time, open: OpenStep, effects: &mut Vec<Effect>) {
        let attempt = if open.holder.is_some() { open.attempt.next() } else { open.attempt };
        self.grant(now, OpenStep { attempt, holder: None, ..open }, effects);
    }

    /// Opens a step. If no worker can take it, it is granted when one can.
    fn grant(&mut self, now: Time, mut open: OpenStep, effects: &mut Vec<Effect>) {
        open.granted = now;
        if let Some(slot) = self.slots.get(&open.modality).filter(|slot| slot.is_able()) {
            open.holder = Some(slot.worker.clone());
            effects.push(Effect::Grant {
                worker: slot.worker.clone(),
                turn: self.reference(self.position.turn, open.step, open.attempt, self.position.head_version),
                lease: slot.lease,
                progress: self.progress(),
            });
        }
        self.phase = Phase::Training(open);
    }

    pub(super) fn reference(&self, turn: Turn, step: Step, attempt: Attempt, head_version: HeadVersion) -> TurnRef {
        TurnRef { job: self.job.clone(), term: self.term, turn, step, attempt, head_version }
    }

    fn lay_out_epoch(&mut self) {
        let order: Vec<_> = self.spec.modalities.iter().map(|m| m.name.clone()).collect();
        let samples = self.samples.iter().map(|(name, sizes)| (name.clone(), sizes.of(Split::Train))).collect();
        let losses = std::mem::take(&mut self.position.losses);
        let means = losses.into_iter().map(|(name, l)| (name, l.sum / (l.steps.max(1) as f64))).collect();
        self.position.plan = epoch::plan(&self.spec.schedule, &order, &samples, &means);
    }

    fn resets_projector(&self) -> bool {
        matches!(self.spec.head.projection, ProjectionSpec::Rls { reset: Reset::Epoch, .. })
    }

    fn train_samples(&self, modality: &ModalityName) -> u64 {
        self.samples.get(modality).map_or(0, |sizes| sizes.train)
    }

    /// α of the open step, which depends on how far its modality is in its own pass through the data.
    fn alpha(&self, open: &OpenStep) -> f64 {
        match self.spec.head.projection {
            ProjectionSpec::Off => 1.0,
            ProjectionSpec::Window { alpha, .. } => alpha,
            ProjectionSpec::Rls { alpha: Alpha::Constant(alpha), .. } => alpha,
            ProjectionSpec::Rls { alpha: Alpha::Decay, .. } => {
                let n = epoch::batches(self.train_samples(&open.modality), self.spec.schedule.batch).max(1);
                let i = self.position.steps_done.get(&open.modality).copied().unwrap_or(0) % n;
                alpha_decay(i, n)
            }
        }
    }

    /// How many epochs are done, including the turns of the current one, and how many there are in total.
    pub(super) fn progress(&self) -> Progress {
        let turns = self.position.plan.turns().max(1) as f64;
        let epochs = match self.spec.schedule.length {
            Length::Epochs(epochs) => epochs as f64,
            Length::Turns(total) => total as f64 / turns,
        };
        Progress { epoch: self.position.epoch as f64 + self.position.turn_in_epoch as f64 / turns, epochs }
    }

    /// Whether the job has reached its length.
    pub(super) fn is_complete(&self) -> bool {
        match self.spec.schedule.length {
            Length::Turns(turns) => self.position.turn.0 >= turns,
            Length::Epochs(epochs) => self.epochs_done() >= epochs,
        }
    }

    /// The number of complete epochs.
    #[must_use]
    pub fn epochs_done(&self) -> u64 {
        self.position.epoch + u64::from(self.at_epoch_end())
    }

    pub(super) fn at_epoch_end(&self) -> bool {
        self.position.turn_in_epoch == self.position.plan.turns()
    }

    /// Turns that a modality has had, and its turns in the whole job, as far as they are known.
    #[must_use]
    pub fn turns_of(&self, modality: &ModalityName) -> (u64, u64) {
        let steps = self.position.steps_done.get(modality).copied().unwrap_or(0);
        let cycle = &self.position.plan.cycle;
        let per_cycle = cycle.iter().filter(|name| *name == modality).count() as u64;
        let planned = self.turns_planned().saturating_mul(per_cycle) / (cycle.len() as u64).max(1);
        (steps / u64::from(self.spec.schedule.turn_batches), planned)
    }

    /// Turns of the whole job, as far as they are known. Epochs whose plan is not known yet count like the current one.
    #[must_use]
    pub fn turns_planned(&self) -> u64 {
        match self.spec.schedule.length {
            Length::Turns(turns) => turns,
            Length::Epochs(epochs) => {
                let left = epochs.saturating_sub(self.position.epoch).saturating_mul(self.position.plan.turns());
                let before = self.position.turn.0 - self.position.turn_in_epoch.min(self.position.turn.0);
                before.saturating_add(left)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Input, SplitSizes};
    use super::*;
    use crate::spec::JobSpec;

    const SAMPLES: SplitSizes = SplitSizes { train: 25, validation: 0, test: 0 };

    fn two_steps() -> JobSpec {
        let mut spec = job(&["audio", "image"]);
        spec.schedule.turn_batches = 2;
        spec.schedule.length = Length::Turns(5);
        spec
    }

    #[test]
    fn a_turn_of_two_steps_folds_once_and_passes_on() {
        let mut machine = running(two_steps(), SAMPLES);
        let first = contribute(&mut machine, 10);
        assert!(matches!(first[..], [Effect::Apply { .. }, Effect::Grant { .. }]), "{first:?}");
        let second = contribute(&mut machine, 10);
        let [Effect::Apply { .. }, Effect::Grant { worker: to, .. }, Effect::EndTurn { turn, modality: of, may_wait }] =
            &second[..]
        else {
            panic!("{second:?}")
        };
        assert_eq!((turn.0, of.as_str(), to.as_str(), *may_wait), (0, "audio", "w-image", true));
    }

    #[test]
    fn a_fold_waits_only_if_the_next_turn_is_granted() {
        let mut machine = running(two_steps(), SAMPLES);
        take(&mut machine, Input::Left { worker: worker("image"), why: "it is gone".to_owned() });
        contribute(&mut machine, 10);
        let effects = contribute(&mut machine, 10);
        assert!(matches!(effects[..], [Effect::Apply { .. }, Effect::EndTurn { may_wait: false, .. }]), "{effects:?}");
    }

    #[test]
    fn alpha_follows_the_modality_through_its_own_data() {
        let mut machine = running(job(&["audio"]), SAMPLES);
        let mut alphas = Vec::new();
        for size in [10, 10, 5, 10] {
            for effect in contribute(&mut machine, size) {
                if let Effect::Apply { alpha, .. } = effect {
                    alphas.push(alpha);
                }
            }
        }
        let expected: Vec<f64> = [0, 1, 2, 0].iter().map(|i| alpha_decay(*i, 3)).collect();
        assert_eq!(alphas, expected);
    }

    #[test]
    fn stale_repeated_and_foreign_messages_are_rejected_by_name() {
        let mut machine = running(two_steps(), SAMPLES);
        let good = open_header(&machine, 10);
        contribute(&mut machine, 10);
        let doubled = refuse(&mut machine, Input::Contribution(good.clone()));
        assert!(matches!(doubled, Rejected::AlreadyApplied { .. }), "{doubled:?}");

        let open = open_header(&machine, 10);
        let with = |change: &dyn Fn(&mut ContributionHeader)| {
            let mut header = open.clone();
            change(&mut header);
            Input::Contribution(header)
        };
        let cases: [(&str, Input); 10] = [
            ("StaleTerm", with(&|h| h.turn.term.0 += 1)),
            ("NoSlot", with(&|h| h.worker = worker("stranger"))),
            ("NotYourTurn", with(&|h| h.worker = worker("image"))),
            ("StaleTurn", with(&|h| h.turn.turn.0 += 1)),
            ("StaleTurn", with(&|h| h.turn.step.0 += 1)),
            ("StaleAttempt", with(&|h| h.turn.attempt.0 += 1)),
            ("StaleHead", with(&|h| h.turn.head_version.0 += 1)),
            ("Malformed", with(&|h| h.samples = 9)),
            ("Malformed", with(&|h| h.micro_shard.count = 2)),
            ("Malformed", with(&|h| h.loss = f64::NAN)),
        ];
        for (name, input) in cases {
            let rejected = refuse(&mut machine, input);
            assert!(format!("{rejected:?}").starts_with(name), "expected {name}, got {rejected:?}");
        }
        contribute(&mut machine, 10);
    }

    #[test]
    fn a_sequential_turn_waits_for_its_encoder_and_folds_first() {
        let mut spec = two_steps();
        spec.schedule.mode = ScheduleMode::Sequential;
        let mut machine = running(spec, SAMPLES);
        for step in 0..2 {
            let header = open_header(&machine, 10);
            let learned = |who: &str| Input::Learned { worker: worker(who), turn: header.turn.clone() };
            refuse(&mut machine, learned("audio"));
            let applied = take(&mut machine, Input::Contribution(header.clone()));
            assert!(matches!(applied[..], [Effect::Apply { .. }]), "{applied:?}");
            assert_eq!(
                machine.activity(),
                format!("turn 0: `audio` worker `w-audio` is learning from step {} of 2", step + 1)
            );
            let doubled = refuse(&mut machine, Input::Contribution(header.clone()));
            assert!(matches!(doubled, Rejected::AlreadyApplied { .. }), "{doubled:?}");
            refuse(&mut machine, learned("image"));
            let mut foreign = header.turn.clone();
            foreign.term.0 += 1;
            refuse(&mut machine, Input::Learned { worker: worker("audio"), turn: foreign });
            let effects = take(&mut machine, learned("audio"));
            refuse(&mut machine, learned("audio"));
            match (step, &effects[..]) {
                (0, [Effect::Grant { worker: to, .. }]) => assert_eq!(to.as_str(), "w-audio"),
                (1, [Effect::EndTurn { turn, may_wait: false, .. }, Effect::Grant { worker: to, .. }]) => {
                    assert_eq!((turn.0, to.as_str()), (0, "w-image"));
                }
                (_, other) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn pipelined_turns_do_not_wait_for_an_encoder_to_learn() {
        let mut machine = running(two_steps(), SAMPLES);
        let first = open_header(&machine, 10).turn;
        contribute(&mut machine, 10);
        let learned = Input::Learned { worker: worker("audio"), turn: first };
        assert!(take(&mut machine, learned.clone()).is_empty());
        refuse(&mut machine, learned);
    }

    #[test]
    fn a_resumed_job_continues_where_it_was() {
        let mut straight = running(two_steps(), SAMPLES);
        for size in [10, 10, 10] {
            contribute(&mut straight, size);
        }
        let mut stopped = straight.clone();
        take(&mut stopped, Input::Stop);
        contribute(&mut stopped, 10);
        let mut resumed = resumed(two_steps(), stopped.position().clone());
        prepare_all(&mut resumed, SAMPLES);
        contribute(&mut straight, 10);
        while straight.outcome().is_none() {
            assert_eq!(straight.position(), resumed.position());
            let without_heads = |mut effects: Vec<Effect>| {
                // Those before the checkpoint are kept by the one that began with them.
                effects.retain(|effect| !matches!(effect, Effect::ForgetHeads { .. }));
                effects
            };
            assert_eq!(without_heads(drive_sizes(&mut straight)), without_heads(drive_sizes(&mut resumed)));
        }
        assert_eq!(straight.outcome(), resumed.outcome());
    }

    #[test]
    fn progress_is_counted_in_epochs() {
        let mut spec = job(&["audio", "image"]);
        spec.schedule.length = Length::Epochs(2);
        let mut machine = running(spec, SAMPLES);
        assert_eq!(machine.turns_planned(), 12);
        assert_eq!(machine.progress(), Progress { epoch: 0.0, epochs: 2.0 });
        for size in [10, 10, 10] {
            contribute(&mut machine, size);
        }
        assert_eq!(machine.progress(), Progress { epoch: 0.5, epochs: 2.0 });
    }
}
