//! A simulated worker: takes the coordinator's messages one at a time, as the engine of a real one does. A contribution is sent
//! before the encoder learns from it, and the next forward pass runs before the next grant is there, unless the schedule is
//! sequential.

use std::collections::VecDeque;

use antiphon_core::head::{Contribution, Head};
use antiphon_core::ids::{EvaluationId, MicroShard, ModalityName, Split, Step, Turn, TurnRef, WorkerId};
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::ScheduleMode;
use antiphon_core::time::Span;
use antiphon_core::turn::{Progress, SplitSizes};

use crate::bugs::Bug;
use crate::delays::Source;
use crate::learner::{Forward, Learner, Logits};
use crate::report::Digest;
use crate::scenario::Scenario;

/// What a coordinator says.
#[derive(Debug, Clone)]
pub(crate) enum ToWorker {
    Assign,
    Grant { turn: TurnRef, head: Head<f32>, progress: Progress },
    Evaluate { evaluation: EvaluationId, split: Split, head: Head<f32> },
    SavePart { turn: Turn },
}

/// What a worker says.
#[derive(Debug, Clone)]
pub(crate) enum ToCoordinator {
    Join { modality: ModalityName },
    Prepared { samples: SplitSizes, steps_done: u64 },
    Contribution { turn: TurnRef, micro_shard: MicroShard, contribution: Contribution<f32> },
    Learned { turn: TurnRef },
    Evaluated { evaluation: EvaluationId, logits: Vec<Logits> },
    PartSaved { turn: Turn, part: Digest },
}

/// What a worker is busy with. It shows when it is done.
#[derive(Debug, Clone)]
enum Work {
    Prepare,
    Forward,
    LocalStep { turn: TurnRef, head: Head<f32>, progress: Progress },
    Learn { turn: TurnRef, feature_gradient: Matrix<f32>, progress: Progress },
    Evaluate { evaluation: EvaluationId, split: Split, head: Head<f32> },
    Save { turn: Turn },
}

/// How long what takes.
struct Sources {
    prepare: Source,
    forward: Source,
    local_step: Source,
    learn: Source,
    evaluate: Source,
    save: Source,
}

/// A worker.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) learner: Learner,
    mode: ScheduleMode,
    turn_batches: u32,
    bug: Option<Bug>,
    sources: Sources,
    inbox: VecDeque<ToWorker>,
    /// The first is under way.
    work: VecDeque<Work>,
    prepared: bool,
    /// Features of the next batch, computed before it is granted.
    ahead: Option<Forward>,
    /// The batch that the encoder is to learn from.
    used: Option<Forward>,
    /// The last step that was granted, and whether it is answered.
    granted: Option<(Turn, Step)>,
    answered: bool,
    /// What [`Bug::SavesBeforeLearning`] saves.
    early_part: Option<Digest>,
}

impl Worker {
    pub(crate) fn new(scenario: &Scenario, at: usize, learner: Learner) -> Self {
        let (delays, seed) = (scenario.workers[at], scenario.schedule_seed);
        let source = |delay, what| Source::new(delay, seed, what, learner.name().into());
        Self {
            id: WorkerId::try_from(format!("{}-1", learner.name())).expect("a good name"),
            mode: scenario.job.schedule.mode,
            turn_batches: scenario.job.schedule.turn_batches,
            bug: scenario.bug,
            sources: Sources {
                prepare: source(delays.prepare, "prepare"),
                forward: source(delays.forward, "forward"),
                local_step: source(delays.local_step, "local step"),
                learn: source(delays.learn, "learn"),
                evaluate: source(delays.evaluate, "evaluate"),
                save: source(delays.save, "save"),
            },
            inbox: VecDeque::new(),
            work: VecDeque::new(),
            prepared: false,
            ahead: None,
            used: None,
            granted: None,
            answered: true,
            early_part: None,
            learner,
        }
    }

    /// A message is there. Says how long what it begins because of it takes; none if it is busy with something else, or idle.
    pub(crate) fn hear(&mut self, message: ToWorker) -> Result<Option<Span>, String> {
        match &message {
            ToWorker::Grant { turn, .. } => self.check_grant(turn)?,
            ToWorker::SavePart { .. } if self.bug == Some(Bug::SavesBeforeLearning) => {
                self.early_part = Some(self.learner.digest());
            }
            ToWorker::Assign | ToWorker::Evaluate { .. } | ToWorker::SavePart { .. } => {}
        }
        self.inbox.push_back(message);
        Ok(if self.work.is_empty() { self.begin() } else { None })
    }

    /// What it was busy with is done. Answers, and says how long the next thing takes, if there is any.
    pub(crate) fn done(&mut self) -> Result<(Option<ToCoordinator>, Option<Span>), String> {
        let work = self.work.pop_front().ok_or("a worker was done with nothing")?;
        let answer = self.complete(work)?;
        Ok((answer, self.begin()))
    }

    /// No grant comes before the last one is answered, and each is for the step after the last one.
    fn check_grant(&mut self, turn: &TurnRef) -> Result<(), String> {
        let given = (turn.turn, turn.step);
        if !self.answered {
            return Err(format!("`{}` was granted {given:?} while {:?} is not answered", self.id, self.granted));
        }
        let follows = match self.granted {
            Some((turn, step)) if turn == given.0 => given.1 == step.next(),
            Some((turn, step)) => given.0 > turn && given.1 == Step(0) && step.0 + 1 == self.turn_batches,
            None => given.1 == Step(0),
        };
        if !follows {
            return Err(format!("`{}` was granted {given:?} after {:?}", self.id, self.granted));
        }
        (self.granted, self.answered) = (Some(given), false);
        Ok(())
    }

    /// Begins what is next: the rest of a message's work, then the forward pass ahead, then the next message.
    fn begin(&mut self) -> Option<Span> {
        while self.work.is_empty() {
            let runs_ahead = self.prepared && self.mode == ScheduleMode::Pipelined;
            if runs_ahead && self.ahead.is_none() {
                self.work.push_back(Work::Forward);
            } else {
                let message = self.inbox.pop_front()?;
                self.take(message);
            }
        }
        self.work.front().map(|work| match work {
            Work::Prepare => self.sources.prepare.draw(),
            Work::Forward => self.sources.forward.draw(),
            Work::LocalStep { .. } => self.sources.local_step.draw(),
            Work::Learn { .. } => self.sources.learn.draw(),
            Work::Evaluate { .. } => self.sources.evaluate.draw(),
            Work::Save { .. } => self.sources.save.draw(),
        })
    }

    fn take(&mut self, message: ToWorker) {
        match message {
            ToWorker::Assign => self.work.push_back(Work::Prepare),
            ToWorker::Grant { turn, head, progress } => {
                if self.ahead.is_none() {
                    self.work.push_back(Work::Forward);
                }
                self.work.push_back(Work::LocalStep { turn, head, progress });
            }
            ToWorker::Evaluate { evaluation, split, head } => {
                self.work.push_back(Work::Evaluate { evaluation, split, head });
            }
            ToWorker::SavePart { turn } => self.work.push_back(Work::Save { turn }),
        }
    }

    fn complete(&mut self, work: Work) -> Result<Option<ToCoordinator>, String> {
        Ok(match work {
            Work::Prepare => {
                self.prepared = true;
                Some(ToCoordinator::Prepared { samples: self.learner.sizes(), steps_done: self.learner.steps })
            }
            Work::Forward => {
                // Of the next step, also where the encoder has yet to learn from the last one: that is what a bug does.
                let next = self.learner.steps + u64::from(self.used.is_some());
                self.ahead = Some(self.learner.forward(next));
                None
            }
            Work::LocalStep { turn, head, progress } => Some(self.local_step(turn, &head, progress)?),
            Work::Learn { turn, feature_gradient, progress } => {
                let forward = self.used.take().ok_or("there is nothing to learn from")?;
                self.learner.learn(&forward, &feature_gradient, progress);
                Some(ToCoordinator::Learned { turn })
            }
            Work::Evaluate { evaluation, split, head } => {
                Some(ToCoordinator::Evaluated { evaluation, logits: self.learner.evaluate(split, &head) })
            }
            Work::Save { turn } => {
                let part = self.early_part.take().unwrap_or_else(|| self.learner.digest());
                Some(ToCoordinator::PartSaved { turn, part })
            }
        })
    }

    /// The contribution goes out at once; the encoder learns afterwards.
    fn local_step(&mut self, turn: TurnRef, head: &Head<f32>, progress: Progress) -> Result<ToCoordinator, String> {
        let forward = self.ahead.take().ok_or("no features were computed")?;
        let local = head.local_step(forward.features.clone(), &forward.labels).map_err(|error| error.to_string())?;
        self.used = Some(forward);
        self.answered = true;
        if self.bug == Some(Bug::ComputesAheadBeforeLearning) {
            self.work.push_back(Work::Forward);
        }
        let feature_gradient = local.feature_gradient;
        self.work.push_back(Work::Learn { turn: turn.clone(), feature_gradient, progress });
        Ok(ToCoordinator::Contribution { turn, micro_shard: MicroShard::WHOLE, contribution: local.contribution })
    }
}
