//! A simulated worker: takes the coordinator's messages one at a time, as the engine of a real one does. A contribution
//! is sent before the encoder learns from it, and the next forward pass runs before the next grant is there, unless the
//! schedule is sequential. The files of a checkpoint are snapshotted when the message is read, and are uploaded while
//! the worker continues.

use std::collections::VecDeque;
use std::rc::Rc;

use antiphon_core::head::{Contribution, Head};
use antiphon_core::ids::{EvaluationId, MicroShard, Split, Term, Turn, TurnRef, WorkerId};
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::ScheduleMode;
use antiphon_core::time::Span;
use antiphon_core::turn::{Progress, SplitSizes};
use serde::{Deserialize, Serialize};

use crate::bugs::Bug;
use crate::delays::Source;
use crate::learner::{Forward, Learner, Logits};
use crate::naive::Naive;
use crate::recorded;
use crate::report::Digest;
use crate::scenario::Scenario;
use crate::store::Store;

/// A message from the coordinator.
#[derive(Debug, Clone)]
pub(crate) enum ToWorker {
    /// Load the encoder from this checkpoint, or start from the seed.
    Assign {
        term: Term,
        restore: Option<Turn>,
    },
    Grant {
        turn: TurnRef,
        head: Head<f32>,
        progress: Progress,
        replay: bool,
    },
    Evaluate {
        term: Term,
        evaluation: EvaluationId,
        split: Split,
        head: Head<f32>,
    },
    SaveFiles {
        term: Term,
        turn: Turn,
    },
    Release,
}

impl ToWorker {
    /// The term that it is said in, where it says so.
    pub(crate) fn term(&self) -> Option<Term> {
        match self {
            Self::Grant { turn, .. } => Some(turn.term),
            Self::Evaluate { term, .. } | Self::SaveFiles { term, .. } => Some(*term),
            Self::Assign { .. } | Self::Release => None,
        }
    }
}

/// A message of a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum ToCoordinator {
    Heartbeat {
        progress: u64,
        busy: bool,
    },
    Prepared {
        term: Term,
        samples: SplitSizes,
        steps_done: u64,
    },
    Contribution {
        turn: TurnRef,
        micro_shard: MicroShard,
        #[serde(with = "recorded")]
        contribution: Contribution<f32>,
    },
    Learned {
        turn: TurnRef,
    },
    Evaluated {
        term: Term,
        evaluation: EvaluationId,
        logits: Vec<Logits>,
    },
    FilesSaved {
        term: Term,
        turn: Turn,
        digest: Digest,
    },
    Failed {
        term: Term,
        reason: String,
        transient: bool,
    },
    Leaving {
        term: Term,
    },
    Released,
}

impl ToCoordinator {
    /// The term that it is said in, where it says so.
    pub(crate) fn term(&self) -> Option<Term> {
        match self {
            Self::Contribution { turn, .. } | Self::Learned { turn } => Some(turn.term),
            Self::Prepared { term, .. }
            | Self::Evaluated { term, .. }
            | Self::FilesSaved { term, .. }
            | Self::Failed { term, .. }
            | Self::Leaving { term } => Some(*term),
            Self::Heartbeat { .. } | Self::Released => None,
        }
    }
}

/// A unit of a worker's work. Its effect shows when it is done.
#[derive(Debug, Clone)]
enum Work {
    Prepare { term: Term, restore: Option<Turn> },
    Forward,
    LocalStep { turn: TurnRef, head: Head<f32>, progress: Progress, replay: bool },
    Learn { turn: TurnRef, feature_gradient: Matrix<f32>, progress: Progress },
    Evaluate { term: Term, evaluation: EvaluationId, split: Split, head: Head<f32> },
    Save { term: Term, turn: Turn },
    Release,
}

/// The result of one unit of work.
#[derive(Debug)]
pub(crate) enum Done {
    Says(ToCoordinator),
    /// Its encoder, on its way to the store.
    Uploads {
        term: Term,
        turn: Turn,
        encoder: Box<Learner>,
        fails: bool,
    },
}

/// The delays of each kind of work.
struct Sources {
    prepare: Source,
    forward: Source,
    local_step: Source,
    learn: Source,
    evaluate: Source,
    save: Source,
}

/// The current job.
struct Assignment {
    term: Term,
    learner: Learner,
    /// Features of the next batch, computed before it is granted.
    ahead: Option<Forward>,
    /// The batch that the encoder learns from next.
    used: Option<Forward>,
}

/// A worker's engine.
pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    /// Its encoder before the first step.
    new: Learner,
    naive: Rc<Naive>,
    mode: ScheduleMode,
    bug: Option<Bug>,
    sources: Sources,
    inbox: VecDeque<ToWorker>,
    /// The first unit is in progress.
    work: VecDeque<Work>,
    assignment: Option<Assignment>,
    /// Counts jobs that it was assigned or lost. Work for an earlier job has no effect.
    pub(crate) tenure: u64,
    /// Counts connections. Work from before the last lost connection is dropped.
    pub(crate) life: u64,
    /// Increases with all work that the worker completes.
    pub(crate) progress: u64,
    /// Whether the next load or save fails with a transient error.
    pub(crate) store_fails: bool,
    /// What [`Bug::SavesBeforeLearning`] saves.
    early_encoder: Option<Learner>,
}

impl Worker {
    pub(crate) fn new(scenario: &Scenario, at: usize, id: WorkerId, new: Learner, naive: Rc<Naive>) -> Self {
        let (delays, seed) = (scenario.workers[at], scenario.schedule_seed);
        let source = |delay, what| Source::new(delay, seed, what, id.as_str().into());
        Self {
            mode: scenario.job.schedule.mode,
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
            assignment: None,
            tenure: 0,
            life: 0,
            progress: 0,
            store_fails: false,
            early_encoder: None,
            id,
            new,
            naive,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.work.is_empty()
    }

    /// The term of the current job.
    pub(crate) fn term(&self) -> Option<Term> {
        self.assignment.as_ref().map(|at| at.term)
    }

    /// A word for its current work.
    pub(crate) fn doing(&self) -> &'static str {
        match (self.work.front(), &self.assignment) {
            (Some(Work::Prepare { .. }), _) => "opening",
            (Some(Work::LocalStep { replay: true, .. }), _) => "replaying",
            (Some(Work::LocalStep { .. }), _) => "holding the head",
            (Some(Work::Learn { .. }), _) => "learning",
            (Some(Work::Evaluate { .. }), _) => "evaluating",
            (Some(Work::Save { .. }), _) => "saving",
            (Some(Work::Forward), _) => "computing ahead",
            (Some(Work::Release), _) => "letting go",
            (None, Some(_)) => "idle",
            (None, None) => "free",
        }
    }

    /// Its connection is lost, and with it all messages that it still sends.
    pub(crate) fn disconnect(&mut self) {
        self.inbox.clear();
        self.work.clear();
        self.let_go();
        self.life += 1;
    }

    fn let_go(&mut self) {
        self.assignment = None;
        self.early_encoder = None;
        self.tenure += 1;
    }

    /// Receives a message. Returns how long the work takes that starts because of it, if any starts.
    pub(crate) fn hear(&mut self, message: ToWorker) -> Option<Span> {
        if let (ToWorker::SaveFiles { .. }, Some(Bug::SavesBeforeLearning), Some(at)) =
            (&message, self.bug, &self.assignment)
        {
            self.early_encoder = Some(at.learner.clone());
        }
        self.inbox.push_back(message);
        if self.work.is_empty() { self.begin() } else { None }
    }

    /// Finishes the current work. Returns its result, and how long the next unit takes, if there is one.
    pub(crate) fn done(&mut self, store: &Store) -> Result<(Option<Done>, Option<Span>), String> {
        let work = self.work.pop_front().ok_or("a worker was done with nothing")?;
        self.progress += 1;
        let answer = self.complete(work, store)?;
        Ok((answer, self.begin()))
    }

    /// Starts the next unit: the rest of a message's work, then the forward pass ahead, then the next message.
    fn begin(&mut self) -> Option<Span> {
        while self.work.is_empty() {
            let pipelined = self.mode == ScheduleMode::Pipelined;
            let runs_ahead = pipelined && self.assignment.as_ref().is_some_and(|at| at.ahead.is_none());
            if runs_ahead && self.inbox.is_empty() {
                self.work.push_back(Work::Forward);
            } else {
                let message = self.inbox.pop_front()?;
                self.take(message);
            }
        }
        self.work.front().map(|work| match work {
            Work::Prepare { .. } => self.sources.prepare.draw(),
            Work::Forward => self.sources.forward.draw(),
            Work::LocalStep { .. } => self.sources.local_step.draw(),
            Work::Learn { .. } => self.sources.learn.draw(),
            Work::Evaluate { .. } => self.sources.evaluate.draw(),
            Work::Save { .. } | Work::Release => Span(0),
        })
    }

    /// How long an upload takes.
    pub(crate) fn upload_takes(&mut self) -> Span {
        self.sources.save.draw()
    }

    fn take(&mut self, message: ToWorker) {
        // Messages of another term, or without a job, are not sent.
        if message.term().is_some_and(|term| self.term() != Some(term)) {
            return;
        }
        match message {
            ToWorker::Assign { term, restore } => self.work.push_back(Work::Prepare { term, restore }),
            ToWorker::Grant { turn, head, progress, replay } => {
                if self.assignment.as_ref().is_some_and(|at| at.ahead.is_none()) {
                    self.work.push_back(Work::Forward);
                }
                self.work.push_back(Work::LocalStep { turn, head, progress, replay });
            }
            ToWorker::Evaluate { term, evaluation, split, head } => {
                self.work.push_back(Work::Evaluate { term, evaluation, split, head });
            }
            ToWorker::SaveFiles { term, turn } => self.work.push_back(Work::Save { term, turn }),
            ToWorker::Release => self.work.push_back(Work::Release),
        }
    }

    fn complete(&mut self, work: Work, store: &Store) -> Result<Option<Done>, String> {
        let says = |message| Ok(Some(Done::Says(message)));
        match work {
            Work::Prepare { term, restore } => {
                return self.prepare(term, restore, store).map(|said| Some(Done::Says(said)));
            }
            Work::Release => {
                self.let_go();
                return says(ToCoordinator::Released);
            }
            _ => {}
        }
        let at = self.assignment.as_mut().ok_or("work without a job")?;
        match work {
            Work::Forward => {
                // For the next step, even if the encoder has not learned from the last one yet, as a planted bug does.
                at.ahead = Some(at.learner.forward(at.learner.steps + u64::from(at.used.is_some())));
                Ok(None)
            }
            Work::LocalStep { turn, head, progress, replay } => self.local_step(turn, &head, progress, replay),
            Work::Learn { turn, feature_gradient, progress } => {
                let forward = at.used.take().ok_or("there is nothing to learn from")?;
                at.learner.learn(&forward, &feature_gradient, progress);
                self.check_encoder()?;
                says(ToCoordinator::Learned { turn })
            }
            Work::Evaluate { term, evaluation, split, head } => {
                says(ToCoordinator::Evaluated { term, evaluation, logits: at.learner.evaluate(split, &head) })
            }
            Work::Save { term, turn } => {
                let encoder = Box::new(self.early_encoder.take().unwrap_or_else(|| at.learner.clone()));
                Ok(Some(Done::Uploads { term, turn, encoder, fails: std::mem::take(&mut self.store_fails) }))
            }
            Work::Prepare { .. } | Work::Release => Err("done already".to_owned()),
        }
    }

    fn prepare(&mut self, term: Term, restore: Option<Turn>, store: &Store) -> Result<ToCoordinator, String> {
        if self.assignment.is_some() {
            return Err(format!("`{}` was assigned a job while it has one", self.id));
        }
        if std::mem::take(&mut self.store_fails) {
            return Ok(ToCoordinator::Failed { term, reason: "the store does not answer".to_owned(), transient: true });
        }
        let learner = match restore {
            None => self.new.clone(),
            Some(turn) => match store.encoder(turn, self.new.name()) {
                Some(encoder) => encoder.clone(),
                None => {
                    let reason = format!("checkpoint {turn} is not there any more");
                    return Ok(ToCoordinator::Failed { term, reason, transient: true });
                }
            },
        };
        let (samples, steps_done) = (learner.sizes(), learner.steps);
        self.tenure += 1;
        self.assignment = Some(Assignment { term, learner, ahead: None, used: None });
        self.check_encoder()?;
        Ok(ToCoordinator::Prepared { term, samples, steps_done })
    }

    /// Checks that the encoder equals that of the plain loop after as many steps.
    fn check_encoder(&self) -> Result<(), String> {
        let Some(at) = &self.assignment else { return Ok(()) };
        let (name, steps, digest) = (at.learner.name(), at.learner.steps, at.learner.digest());
        let expected = self.naive.encoders.get(name).and_then(|after| after.get(steps as usize));
        if expected != Some(&digest) {
            return Err(format!("step {steps} of encoder `{name}` led to {digest:?} and should have to {expected:?}"));
        }
        Ok(())
    }

    /// The contribution goes out at once, unless the step is a replay; the encoder learns afterwards.
    fn local_step(
        &mut self,
        turn: TurnRef,
        head: &Head<f32>,
        progress: Progress,
        replay: bool,
    ) -> Result<Option<Done>, String> {
        let at = self.assignment.as_mut().ok_or("a grant without a job")?;
        // Each grant is for the step that follows in the plain loop.
        let version = turn.head_version.0 as usize;
        let own = self.naive.own_steps.get(version).copied();
        let mine = self.naive.report.steps.get(version).is_some_and(|step| step.modality == *at.learner.name());
        if own != Some(at.learner.steps) || !mine {
            let (id, steps) = (&self.id, at.learner.steps);
            return Err(format!("`{id}` was granted {turn:?}, again: {replay}, with {steps} steps behind it"));
        }
        let forward = at.ahead.take().ok_or("no features were computed")?;
        let local = head.local_step(forward.features.clone(), &forward.labels).map_err(|error| error.to_string())?;
        at.used = Some(forward);
        if self.bug == Some(Bug::ComputesAheadBeforeLearning) {
            self.work.push_back(Work::Forward);
        }
        let feature_gradient = local.feature_gradient;
        self.work.push_back(Work::Learn { turn: turn.clone(), feature_gradient, progress });
        if replay {
            return Ok(None);
        }
        let contribution = local.contribution;
        Ok(Some(Done::Says(ToCoordinator::Contribution { turn, micro_shard: MicroShard::WHOLE, contribution })))
    }
}
