//! The same job without a turn machine: a plain loop over epochs, turns and steps on one thread, written from the
//! specification of the algorithm. It shares the learners and the head's mathematics with the simulation, and nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::head::{SharedHead, StepContext};
use antiphon_core::ids::{ModalityName, Split, Turn};
use antiphon_core::learning_rate::factor;
use antiphon_core::spec::{Alpha, Every, JobSpec, Length, ProjectionSpec, Reset, TurnOrder};
use antiphon_core::turn::{Outcome, Progress};

use crate::learner::Learner;
use crate::report::{CheckpointRecord, Digest, EvaluationRecord, Report, State, StepRecord, head_state, score};
use crate::scenario::Scenario;

/// The expected result of a job, whatever faults happen: its report, and each state that a fault may reveal.
pub(crate) struct Naive {
    pub(crate) report: Report,
    /// All files, after each turn.
    pub(crate) states: Vec<State>,
    /// For each step of the head, the number of the step within its modality, from 0.
    pub(crate) own_steps: Vec<u64>,
    /// Each encoder after each of its steps.
    pub(crate) encoders: BTreeMap<ModalityName, Vec<Digest>>,
}

impl Naive {
    /// The checkpoint after this many turns, whether one is due there or not.
    pub(crate) fn checkpoint(&self, turn: Turn) -> Option<CheckpointRecord> {
        let validated = |it: &&EvaluationRecord| it.turn == turn && it.split == Split::Validation;
        let score = self.report.evaluations.iter().find(validated).map(|evaluation| evaluation.score);
        let state = self.states.get(turn.0 as usize)?.clone();
        Some(CheckpointRecord { turn, score, state })
    }
}

impl Naive {
    /// The expected report of a job that has also written these `early` checkpoints.
    pub(crate) fn expected(&self, early: &[CheckpointRecord]) -> Report {
        let mut expected = self.report.clone();
        let due = self.report.checkpoints.iter().map(|checkpoint| checkpoint.turn);
        let turns: BTreeSet<Turn> = due.chain(early.iter().map(|checkpoint| checkpoint.turn)).collect();
        expected.checkpoints = turns.into_iter().filter_map(|turn| self.checkpoint(turn)).collect();
        expected.best = None;
        for checkpoint in &expected.checkpoints {
            let score = checkpoint.score.map(f64::from_bits);
            if let Some(score) = score.filter(|score| expected.best.is_none_or(|(best, _)| *score > best)) {
                expected.best = Some((score, checkpoint.turn));
            }
        }
        expected
    }
}

/// Runs a job, one step after the other.
pub(crate) fn run(scenario: &Scenario) -> Naive {
    let mut looped = Loop::new(scenario);
    let mut epoch = 0;
    while !looped.is_over(epoch) {
        looped.epoch(epoch);
        epoch += 1;
    }
    if looped.turn == 0 {
        looped.boundary(0, 0, 0);
        looped.report.counts = [0; 4];
    }
    looped.report.outcome = Some(Outcome::Succeeded);
    looped.report.state = looped.state();
    let Loop { report, states, own_steps, encoders, .. } = looped;
    Naive { report, states, own_steps, encoders }
}

struct Loop<'a> {
    job: &'a JobSpec,
    /// In the order of the job.
    learners: Vec<Learner>,
    head: SharedHead<f32>,
    /// Turns applied.
    turn: u64,
    /// Losses of each modality's steps in the epoch before.
    losses: Vec<Vec<f64>>,
    report: Report,
    states: Vec<State>,
    own_steps: Vec<u64>,
    encoders: BTreeMap<ModalityName, Vec<Digest>>,
}

impl<'a> Loop<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let job = &scenario.job;
        let learners = scenario.learners();
        let mut new = Self {
            job,
            encoders: learners.iter().map(|learner| (learner.name().clone(), vec![learner.digest()])).collect(),
            learners,
            head: SharedHead::new(&job.head, job.labels.classes.count(), job.seed),
            turn: 0,
            losses: vec![Vec::new(); job.modalities.len()],
            report: Report::default(),
            states: Vec::new(),
            own_steps: Vec::new(),
        };
        new.states.push(new.state());
        new
    }

    fn is_over(&self, epochs_done: u64) -> bool {
        match self.job.schedule.length {
            Length::Epochs(epochs) => epochs_done >= epochs,
            Length::Turns(turns) => self.turn >= turns,
        }
    }

    fn epoch(&mut self, epoch: u64) {
        if epoch > 0 && matches!(self.job.head.projection, ProjectionSpec::Rls { reset: Reset::Epoch, .. }) {
            self.head.reset_projector();
        }
        let turns = self.turns();
        self.losses.iter_mut().for_each(Vec::clear);
        for (index, at) in turns.iter().enumerate() {
            let done = epoch as f64 + index as f64 / turns.len() as f64;
            let epochs = match self.job.schedule.length {
                Length::Epochs(epochs) => epochs as f64,
                Length::Turns(all) => all as f64 / turns.len() as f64,
            };
            for step in 0..self.job.schedule.turn_batches {
                self.step(*at, step, Progress { epoch: done, epochs });
            }
            self.head.end_turn();
            self.turn += 1;
            self.states.push(self.state());
            let at_end = index + 1 == turns.len();
            self.boundary(epoch, index as u64 + 1, if at_end { epoch + 1 } else { epoch });
            if self.is_over(if at_end { epoch + 1 } else { epoch }) {
                break;
            }
        }
    }

    /// The modalities of the next epoch's turns, as positions in the job.
    fn turns(&self) -> Vec<usize> {
        let schedule = &self.job.schedule;
        let mut order: Vec<usize> = (0..self.learners.len()).collect();
        let mut weights = vec![1_u64; order.len()];
        match &schedule.order {
            TurnOrder::Cyclic => {}
            TurnOrder::WeakFirst => {
                let mean = |at: &usize| {
                    let losses = &self.losses[*at];
                    losses.iter().fold(0.0, |sum, loss| sum + loss) / losses.len().max(1) as f64
                };
                order.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
            }
            TurnOrder::Weighted(given) => {
                for (weight, learner) in weights.iter_mut().zip(&self.learners) {
                    *weight = given.get(learner.name()).copied().map_or(1, u64::from);
                }
            }
        }
        // One turn for each modality that has any left, round by round.
        let (mut cycle, mut left) = (Vec::new(), weights.clone());
        while left.iter().any(|left| *left > 0) {
            for at in &order {
                if left[*at] > 0 {
                    left[*at] -= 1;
                    cycle.push(*at);
                }
            }
        }
        // Cycles until every modality has seen all of its data.
        let through = |cycles: u64| {
            let steps = |weight: u64| cycles * weight * u64::from(schedule.turn_batches);
            self.learners.iter().zip(&weights).all(|(learner, weight)| steps(*weight) >= learner.batches())
        };
        let cycles = (1..).find(|cycles| through(*cycles)).expect("data that end");
        (0..cycles).flat_map(|_| cycle.clone()).collect()
    }

    fn step(&mut self, at: usize, step: u32, progress: Progress) {
        let learner = &mut self.learners[at];
        let forward = learner.forward(learner.steps);
        let local = self.head.head().local_step(forward.features.clone(), &forward.labels).expect("a batch that fits");
        let alpha = match self.job.head.projection {
            ProjectionSpec::Off => 1.0,
            ProjectionSpec::Window { alpha, .. } | ProjectionSpec::Rls { alpha: Alpha::Constant(alpha), .. } => alpha,
            ProjectionSpec::Rls { alpha: Alpha::Decay, .. } => {
                let n = learner.batches();
                0.1_f64.powf(1.0 + (learner.steps % n) as f64 / n as f64)
            }
        };
        let lr_factor = factor(&self.job.head.optimizer.schedule, progress.epoch, progress.epochs);
        let loss = local.contribution.loss;
        let context = StepContext { lr_factor, alpha };
        self.head.apply(learner.name(), &local.contribution, context).expect("a contribution that fits");
        self.own_steps.push(learner.steps);
        learner.learn(&forward, &local.feature_gradient, progress);
        self.encoders.entry(learner.name().clone()).or_default().push(learner.digest());
        self.losses[at].push(loss);
        self.report.steps.push(StepRecord::new(Turn(self.turn), step, learner.name(), loss, &self.head));
    }

    /// Does what is due after a turn, when `turn_in_epoch` turns of this epoch and `epochs_done` whole epochs are done.
    fn boundary(&mut self, epoch: u64, turn_in_epoch: u64, epochs_done: u64) {
        let is_over = self.is_over(epochs_done);
        let ends_epoch = epochs_done > epoch;
        let is_due = |every: Every| match every {
            Every::Epochs(n) => ends_epoch && epochs_done.is_multiple_of(n),
            Every::Turns(n) => self.turn.is_multiple_of(n),
            Every::End => false,
        };
        let validates = if is_over { self.turn > 0 } else { is_due(self.job.evaluation.every) };
        let saves = is_over || is_due(self.job.checkpoints.every);
        let score = if validates { self.evaluate(Split::Validation) } else { None };
        if saves {
            let turn = Turn(self.turn);
            if let Some(score) = score
                && self.report.best.is_none_or(|(best, _)| score > best)
            {
                self.report.best = Some((score, turn));
            }
            let record = CheckpointRecord { turn, score: score.map(f64::to_bits), state: self.state() };
            self.report.checkpoints.push(record);
        }
        if is_over {
            self.evaluate(Split::Test);
        }
        self.report.counts = [self.turn, self.head.version().0, epoch, turn_in_epoch];
    }

    fn evaluate(&mut self, split: Split) -> Option<f64> {
        if self.learners.iter().all(|learner| learner.sizes().of(split) == 0) {
            return None;
        }
        let logits = |learner: &Learner| (learner.name().clone(), learner.evaluate(split, self.head.head()));
        let answers: BTreeMap<ModalityName, _> = self.learners.iter().map(logits).collect();
        let score = score(&answers);
        let record = EvaluationRecord { turn: Turn(self.turn), split, score: score.to_bits() };
        self.report.evaluations.push(record);
        Some(score)
    }

    fn state(&self) -> State {
        let mut state = head_state(&self.head).expect("no turn is open");
        let last = |name: &ModalityName| *self.encoders[name].last().expect("as it begins");
        state.extend(self.encoders.keys().map(|name| (format!("encoder-{name}"), last(name))));
        state
    }
}
