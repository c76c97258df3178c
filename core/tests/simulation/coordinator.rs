//! The simulated shell around the turn machine. It handles messages and carries out effects as the coordinator's job
//! does, with the real machine and the real shared head, but without sockets, tasks and files.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use antiphon_core::head::{Contribution, Head, SharedHead};
use antiphon_core::ids::{EvaluationId, HeadVersion, JobId, ModalityName, Term, Turn, TurnRef, WorkerId};
use antiphon_core::spec::{JobSpec, ScheduleMode};
use antiphon_core::time::{Span, Time};
use antiphon_core::turn::{Effect, Input, Rejected, ReplayBufferLevel, TurnMachine};
use serde::{Deserialize, Serialize};

use crate::bugs::Bug;
use crate::delays::Source;
use crate::evaluation::Evaluation;
use crate::naive::Naive;
use crate::pool::{Pool, Wish};
use crate::report::{Report, State};
use crate::scenario::Scenario;
use crate::store::Manifest;
use crate::worker::{ToCoordinator, ToWorker};

/// A deadline that is this late shows that the coordinator was stalled.
const STALLED: Span = Span::from_secs(1);

/// An input of a coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Inbound {
    /// A worker is connected.
    Registers {
        worker: WorkerId,
        modality: ModalityName,
    },
    /// The pool assigns a worker to the job.
    Joined {
        worker: WorkerId,
        modality: ModalityName,
    },
    Says {
        worker: WorkerId,
        message: Box<ToCoordinator>,
    },
    /// A worker's connection is gone.
    Gone {
        worker: WorkerId,
    },
    /// This checkpoint exists.
    Written {
        turn: Turn,
    },
    /// The user asks the job to stop.
    Stop {
        now: bool,
    },
    /// A deadline has passed.
    Due,
}

/// Why a message changed nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The machine rejects it.
    Rejected(Rejected),
    /// The shell rejects it, without asking the machine.
    Shell(String),
    /// The machine or the shell is wrong: the simulation has found a bug.
    Broken(String),
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

/// An output of the coordinator.
#[derive(Debug)]
pub(crate) enum Sent {
    ToWorker(WorkerId, ToWorker),
    /// A manifest is to be written.
    Manifest(Box<Manifest>),
    /// The job's task processes this next.
    Inbox(Inbound),
}

/// The head's files of a pending checkpoint.
pub(super) struct PendingHead {
    pub(super) turn: Turn,
    pub(super) head: antiphon_core::head::HeadFiles<f32>,
    pub(super) state: State,
}

/// The coordinator of one job, in one term.
pub(crate) struct Coordinator {
    pub(super) job: JobSpec,
    pub(super) naive: Rc<Naive>,
    pub(super) bug: Option<Bug>,
    pub(crate) term: Term,
    pub(crate) machine: TurnMachine,
    pub(crate) head: SharedHead<f32>,
    /// The granted heads of all steps since the checkpoints from which a replacement may start.
    pub(super) heads: BTreeMap<HeadVersion, Head<f32>>,
    /// The bound of the replay buffer, in heads.
    pub(super) heads_at_most: usize,
    pub(super) buffer_level: ReplayBufferLevel,
    pub(crate) pool: Pool,
    /// The workers that have the job, including those that were evicted and have not released it yet.
    pub(super) members: BTreeMap<WorkerId, ModalityName>,
    /// The contribution whose header the machine is checking.
    pub(super) incoming: Option<Contribution<f32>>,
    /// The step that a worker may take.
    pub(super) granted: Option<TurnRef>,
    /// The modality whose ended turn is folded after all effects of the input.
    pub(super) waiting_fold: Option<ModalityName>,
    /// Sequential: the modality whose encoder has to learn before the next grant.
    pub(super) learning: Option<ModalityName>,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) abandoned: Option<EvaluationId>,
    pub(super) snapshot: Option<PendingHead>,
    pub(crate) newest: Option<Turn>,
    next: Vec<Input>,
    pub(super) apply: Source,
    pub(super) fold: Source,
    /// How long the current message has taken so far.
    pub(super) spent: Span,
    /// Its outputs, each with the time since it arrived.
    pub(super) sent: Vec<(Span, Sent)>,
    pub(crate) report: Report,
    /// When which modality's step was applied.
    pub(crate) applied: Vec<(Time, ModalityName)>,
    /// All effects since they were last taken.
    pub(crate) effects: Vec<Effect>,
    /// What has happened here, for the test that everything happens.
    pub(crate) seen: BTreeSet<&'static str>,
}

impl Coordinator {
    /// The leader of a new term, from a checkpoint if there is one. `before` is what the job did before that
    /// checkpoint.
    pub(crate) fn begin(
        scenario: &Scenario,
        naive: &Rc<Naive>,
        term: Term,
        from: Option<&Manifest>,
        now: Time,
        before: Report,
    ) -> Result<Self, String> {
        let (job, seed) = (scenario.job.clone(), scenario.schedule_seed);
        let classes = job.labels.classes.count();
        let head = match from {
            Some(manifest) => SharedHead::from_files(&job.head, classes, &manifest.head).map_err(|e| e.to_string())?,
            None => SharedHead::new(&job.head, classes, job.seed),
        };
        let source = |delay, what| Source::new(delay, seed ^ term.0 << 32, what, "coordinator".into());
        let position = from.map(|manifest| manifest.position.clone());
        let at_most = scenario.heads.max(2 * job.schedule.turn_batches as usize + 1);
        Ok(Self {
            naive: Rc::clone(naive),
            bug: scenario.bug,
            term,
            machine: TurnMachine::new(job_id(), term, job.clone(), position, now),
            head,
            heads: BTreeMap::new(),
            heads_at_most: at_most,
            buffer_level: ReplayBufferLevel::Normal,
            pool: Pool::new(job.modalities.iter().map(|modality| modality.name.clone())),
            members: BTreeMap::new(),
            incoming: None,
            granted: None,
            waiting_fold: None,
            learning: None,
            evaluation: None,
            abandoned: None,
            snapshot: None,
            newest: from.map(Manifest::turn),
            next: Vec::new(),
            apply: source(scenario.coordinator.apply, "apply"),
            fold: source(scenario.coordinator.fold, "fold"),
            spent: Span(0),
            sent: Vec::new(),
            report: before,
            applied: Vec::new(),
            effects: Vec::new(),
            seen: BTreeSet::new(),
            job,
        })
    }

    /// How long the current message took, and its outputs.
    pub(crate) fn take_sent(&mut self) -> (Span, Vec<(Span, Sent)>) {
        (std::mem::take(&mut self.spent), std::mem::take(&mut self.sent))
    }

    /// Processes one input.
    pub(crate) fn take(&mut self, now: Time, inbound: Inbound) -> Result<(), Refusal> {
        let taken = match inbound {
            Inbound::Registers { worker, modality } => {
                self.pool.register(worker, modality);
                Ok(())
            }
            Inbound::Joined { worker, modality } => self.joined(now, worker, modality),
            Inbound::Says { worker, message } => self.hear(now, worker, *message),
            Inbound::Gone { worker } => self.gone(now, worker),
            Inbound::Written { turn } => {
                self.newest = Some(turn);
                self.give(now, Input::CheckpointWritten { turn })
            }
            Inbound::Stop { now: false } if self.bug != Some(Bug::StopsAtOnce) => self.give(now, Input::Stop),
            Inbound::Stop { .. } => self.give(now, Input::StopNow),
            Inbound::Due => self.due(now),
        };
        self.heed_pool();
        taken
    }

    /// Gives the machine a tick if a deadline has passed. Spurious calls do nothing.
    fn due(&mut self, now: Time) -> Result<(), Refusal> {
        let Some((deadline, why)) = self.machine.next_deadline().filter(|(at, _)| *at <= now) else { return Ok(()) };
        let late = now.since(deadline) >= STALLED;
        if late {
            self.seen.insert("the coordinator stalled");
        }
        self.give(now, if late { Input::StallEnded } else { Input::Tick })?;
        match self.machine.next_deadline() {
            Some((at, _)) if at <= now => Err(Refusal::Broken(format!(
                "\"{why}\" was heeded, and is still due: {:?}",
                self.machine.next_deadline()
            ))),
            _ => Ok(()),
        }
    }

    fn heed_pool(&mut self) {
        for wish in self.pool.take_wishes() {
            let sent = match wish {
                Wish::Join(worker, modality) => Sent::Inbox(Inbound::Joined { worker, modality }),
                Wish::Release(worker) => Sent::ToWorker(worker, ToWorker::Release),
            };
            self.sent.push((self.spent, sent));
        }
    }

    fn joined(&mut self, now: Time, worker: WorkerId, modality: ModalityName) -> Result<(), Refusal> {
        // The worker may have left in the meantime.
        if !self.pool.knows(&worker) {
            return Ok(());
        }
        let before = self.members.insert(worker.clone(), modality.clone());
        match self.give(now, Input::Joined { worker: worker.clone(), modality: modality.clone() }) {
            Err(Refusal::Rejected(_)) => {
                if before.is_none() {
                    self.members.remove(&worker);
                }
                if let Some(occupant) = self.machine.worker(&modality) {
                    self.seen.insert("a slot was reclaimed though it was given away");
                    self.pool.reclaim_slot(&modality, occupant);
                }
                self.pool.evict(&worker);
                Ok(())
            }
            taken => {
                if self.machine.next_deadline().is_some_and(|(_, why)| why == "a back-off ends") {
                    self.seen.insert("a failed worker backed off");
                }
                taken
            }
        }
    }

    /// A worker's connection has ended, or an evicted worker has released the job.
    fn gone(&mut self, now: Time, worker: WorkerId) -> Result<(), Refusal> {
        self.pool.remove(&worker);
        self.lost(now, worker)
    }

    fn lost(&mut self, now: Time, worker: WorkerId) -> Result<(), Refusal> {
        if self.members.remove(&worker).is_none() {
            return Ok(());
        }
        // An evicted worker may have had the head until now.
        match self.give(now, Input::Left { worker, why: "it is gone".to_owned() }) {
            Err(Refusal::Broken(why)) => Err(Refusal::Broken(why)),
            _ => Ok(()),
        }
    }

    fn hear(&mut self, now: Time, worker: WorkerId, message: ToCoordinator) -> Result<(), Refusal> {
        if let ToCoordinator::Released = message {
            self.pool.released(&worker);
            return self.lost(now, worker);
        }
        match message {
            ToCoordinator::Contribution { turn, micro_shard, contribution } => {
                self.contribution(now, worker, turn, micro_shard, contribution)
            }
            ToCoordinator::Learned { turn } => self.learned(now, worker, turn),
            ToCoordinator::Evaluated { term, evaluation, logits } => {
                self.same_term(term)?;
                self.evaluated(now, &worker, evaluation, logits)
            }
            ToCoordinator::FilesSaved { term, turn, digest } => {
                self.same_term(term)?;
                self.files_saved(now, worker, turn, digest)
            }
            ToCoordinator::Heartbeat { progress, busy } => {
                match self.give(now, Input::Heartbeat { worker, progress, busy }) {
                    Err(Refusal::Broken(why)) => Err(Refusal::Broken(why)),
                    // A worker that has lost its slot may still send some.
                    _ => Ok(()),
                }
            }
            ToCoordinator::Prepared { term, samples, steps_done } => {
                self.same_term(term)?;
                self.give(now, Input::Prepared { worker, samples, steps_done })
            }
            ToCoordinator::Failed { term, reason, transient } => {
                self.same_term(term)?;
                self.give(now, Input::WorkerFailed { worker, reason, transient })
            }
            ToCoordinator::Leaving { term } => {
                self.same_term(term)?;
                self.give(now, Input::Leaving { worker })
            }
            ToCoordinator::Released => Ok(()),
        }
    }

    fn learned(&mut self, now: Time, worker: WorkerId, turn: TurnRef) -> Result<(), Refusal> {
        if self.bug == Some(Bug::LosesLearned) && turn.turn.0 % 4 == 3 {
            return Ok(());
        }
        let modality = self.members.get(&worker).cloned();
        let waits = self.learning.clone();
        if self.learning == modality {
            self.learning = None;
        }
        let taken = self.give(now, Input::Learned { worker, turn });
        if let Err(Refusal::Rejected(_)) = &taken {
            self.learning = waits;
        }
        taken
    }

    fn same_term(&self, given: Term) -> Result<(), Refusal> {
        if given == self.term || self.bug == Some(Bug::TakesOldTerms) {
            return Ok(());
        }
        Err(Rejected::StaleTerm { given: given.0, current: self.term.0 }.into())
    }

    /// Gives the machine an input, carries out its effects in order, and then gives it the inputs that result from
    /// them.
    pub(super) fn give(&mut self, now: Time, input: Input) -> Result<(), Refusal> {
        let mut taken = self.give_one(now, input);
        while !self.next.is_empty() && !matches!(taken, Err(Refusal::Broken(_))) {
            let next = self.next.remove(0);
            if let Err(broken @ Refusal::Broken(_)) = self.give_one(now, next) {
                taken = Err(broken);
            }
        }
        taken
    }

    /// Gives the machine an input after the effects of the current one.
    pub(super) fn next_input(&mut self, input: Input) {
        self.next.push(input);
    }

    fn give_one(&mut self, now: Time, input: Input) -> Result<(), Refusal> {
        let mut effects = Vec::new();
        if let Err(rejected) = self.machine.step(now, input, &mut effects) {
            let nothing = effects.is_empty();
            return Err(if nothing {
                rejected.into()
            } else {
                Refusal::Broken(format!("{rejected}, but: {effects:?}"))
            });
        }
        self.machine.check_invariants().map_err(Refusal::Broken)?;
        if self.bug == Some(Bug::ResetsTooEarly) {
            // A stable sort: everything else stays in its order.
            effects.sort_by_key(|effect| !matches!(effect, Effect::ResetProjector));
        }
        for effect in effects {
            self.effects.push(effect.clone());
            self.carry_out(now, effect).map_err(Refusal::Broken)?;
        }
        match self.waiting_fold.take() {
            Some(_) if self.granted.is_none() => {
                Err(Refusal::Broken("a fold waits for a grant that is not out".to_owned()))
            }
            Some(modality) => self.end_turn(&modality).map_err(Refusal::Broken),
            None => Ok(()),
        }
    }

    /// Sequential: whether a step is over also depends on whether its encoder has learned.
    pub(super) fn is_sequential(&self) -> bool {
        self.job.schedule.mode == ScheduleMode::Sequential
    }
}

pub(crate) fn job_id() -> JobId {
    JobId::try_from("simulated-1").expect("a good id")
}
