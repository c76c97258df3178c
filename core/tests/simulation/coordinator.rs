//! The simulated shell round the turn machine: what the coordinator's job does with a message and with the machine's effects,
//! with the real machine and the real shared head, but without sockets, tasks and files.

use std::collections::BTreeMap;

use antiphon_core::head::{Contribution, Head, SharedHead, StepContext};
use antiphon_core::ids::{EvaluationId, JobId, MicroShard, ModalityName, Split, Term, Turn, TurnRef, WorkerId};
use antiphon_core::learning_rate;
use antiphon_core::spec::{JobSpec, ScheduleMode};
use antiphon_core::time::{Span, Time};
use antiphon_core::turn::{ContributionHeader, Effect, Input, Progress, Rejected, TurnMachine};

use crate::bugs::Bug;
use crate::delays::Source;
use crate::learner::Logits;
use crate::report::{CheckpointRecord, EvaluationRecord, Report, State, StepRecord, counts, head_state, score};
use crate::scenario::Scenario;
use crate::worker::{ToCoordinator, ToWorker};

/// Why a message changed nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The machine rejects it.
    Rejected(Rejected),
    /// The shell does, without asking the machine.
    Shell(String),
    /// Something is wrong with the machine or the shell: the simulation has found what it looks for.
    Broken(String),
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

/// What the coordinator sets off.
#[derive(Debug)]
pub(crate) enum Sent {
    /// A message to a worker.
    ToWorker(WorkerId, ToWorker),
    /// The manifest of this checkpoint is being written.
    Manifest(Turn),
}

/// A step that a worker may take.
#[derive(Debug, Clone, PartialEq)]
struct Granted {
    turn: TurnRef,
    applied: bool,
}

struct Evaluation {
    id: EvaluationId,
    split: Split,
    answers: BTreeMap<ModalityName, Vec<Logits>>,
}

struct Cut {
    turn: Turn,
    state: State,
    score: Option<f64>,
}

/// The coordinator of one job.
pub(crate) struct Coordinator {
    job: JobSpec,
    bug: Option<Bug>,
    pub(crate) machine: TurnMachine,
    pub(crate) head: SharedHead<f32>,
    /// The head before its last step: what [`Bug::GrantsTheHeadBefore`] sends.
    head_before: Head<f32>,
    /// Whom messages to everybody go to, in the order in which they joined.
    members: Vec<WorkerId>,
    /// The contribution whose header the machine is looking at.
    incoming: Option<Contribution<f32>>,
    granted: Option<Granted>,
    evaluation: Option<Evaluation>,
    cut: Option<Cut>,
    apply: Source,
    fold: Source,
    /// How long the message at hand has taken so far.
    spent: Span,
    /// What it set off, and how long after it came.
    sent: Vec<(Span, Sent)>,
    pub(crate) report: Report,
    /// When which modality's step was applied.
    pub(crate) applied: Vec<(Time, ModalityName)>,
}

impl Coordinator {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let (job, seed) = (scenario.job.clone(), scenario.schedule_seed);
        let head = SharedHead::new(&job.head, job.labels.classes.count(), job.seed);
        let source = |delay, what| Source::new(delay, seed, what, "coordinator".into());
        Self {
            bug: scenario.bug,
            machine: TurnMachine::new(job_id(), Term(1), job.clone(), None, Time(0)),
            head_before: head.head().clone(),
            head,
            members: Vec::new(),
            incoming: None,
            granted: None,
            evaluation: None,
            cut: None,
            apply: source(scenario.coordinator.apply, "apply"),
            fold: source(scenario.coordinator.fold, "fold"),
            spent: Span(0),
            sent: Vec::new(),
            report: Report::default(),
            applied: Vec::new(),
            job,
        }
    }

    /// How long the message at hand took, and what it set off.
    pub(crate) fn take_sent(&mut self) -> (Span, Vec<(Span, Sent)>) {
        (std::mem::take(&mut self.spent), std::mem::take(&mut self.sent))
    }

    /// A worker says something.
    pub(crate) fn hear(&mut self, now: Time, from: &WorkerId, message: ToCoordinator) -> Result<(), Refusal> {
        let worker = from.clone();
        match message {
            ToCoordinator::Join { modality } => {
                self.members.push(worker.clone());
                self.give(now, Input::Joined { worker, modality })
            }
            ToCoordinator::Prepared { samples, steps_done } => {
                self.give(now, Input::Prepared { worker, samples, steps_done })
            }
            ToCoordinator::Contribution { turn, micro_shard, contribution } => {
                self.contribution(now, worker, turn, micro_shard, contribution)
            }
            ToCoordinator::Learned { turn } => self.give(now, Input::Learned { worker, turn }),
            ToCoordinator::Evaluated { evaluation, logits } => self.evaluated(now, &worker, evaluation, logits),
            ToCoordinator::PartSaved { turn, part } => self.part_saved(now, worker, turn, part),
        }
    }

    /// The manifest of a checkpoint is in the store.
    pub(crate) fn written(&mut self, now: Time, turn: Turn) -> Result<(), Refusal> {
        let cut = self.cut.take().filter(|cut| cut.turn == turn);
        let cut = cut.ok_or_else(|| Refusal::Broken(format!("checkpoint {turn} was never begun")))?;
        let score = cut.score.map(f64::to_bits);
        self.report.checkpoints.push(CheckpointRecord { turn, score, state: cut.state });
        self.give(now, Input::CheckpointWritten { turn })
    }

    /// Gives the machine an input and carries out its effects, in order.
    pub(crate) fn give(&mut self, now: Time, input: Input) -> Result<(), Refusal> {
        let learned = match &input {
            Input::Learned { turn, .. } => Some(turn.clone()),
            _ => None,
        };
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
        // Sequential, a step is over when its encoder has learnt.
        if self.granted.as_ref().is_some_and(|granted| granted.applied && Some(&granted.turn) == learned.as_ref()) {
            self.granted = None;
        }
        if self.bug == Some(Bug::ResetsTooEarly) {
            // A stable sort: everything else stays in its order.
            effects.sort_by_key(|effect| !matches!(effect, Effect::ResetProjector));
        }
        for effect in effects {
            self.carry_out(now, effect).map_err(Refusal::Broken)?;
        }
        Ok(())
    }

    /// The tensors are checked in full before the machine hears of them.
    fn contribution(
        &mut self,
        now: Time,
        worker: WorkerId,
        turn: TurnRef,
        micro_shard: MicroShard,
        contribution: Contribution<f32>,
    ) -> Result<(), Refusal> {
        let (classes, width) = (self.head.head().classes(), self.head.head().width());
        contribution.check(classes, width).map_err(|error| Refusal::Shell(error.to_string()))?;
        let (samples, loss) = (contribution.samples, contribution.loss);
        let modality = self.machine.modality_of(&worker).cloned();
        let header = ContributionHeader { worker, turn, micro_shard, samples, loss };
        self.incoming = Some(contribution);
        let taken = self.give(now, Input::Contribution(header));
        if let (Err(_), Some(Bug::AppliesWhatWasRefused), Some(modality)) = (&taken, self.bug, modality)
            && let Some(contribution) = &self.incoming
        {
            let context = StepContext { lr_factor: 1.0, alpha: 1.0 };
            let applied = self.head.apply(&modality, contribution, context);
            applied.map_err(|error| Refusal::Broken(error.to_string()))?;
        }
        self.incoming = None;
        taken
    }

    fn evaluated(
        &mut self,
        now: Time,
        worker: &WorkerId,
        id: EvaluationId,
        logits: Vec<Logits>,
    ) -> Result<(), Refusal> {
        let modality = self.machine.modality_of(worker).cloned();
        let modality = modality.ok_or_else(|| Refusal::Shell("the sender has no place in this job".to_owned()))?;
        let open = self.evaluation.as_mut().filter(|open| open.id == id && !open.answers.contains_key(&modality));
        let open = open.ok_or_else(|| Refusal::Shell(format!("evaluation {id} does not wait for `{modality}`")))?;
        open.answers.insert(modality, logits);
        if open.answers.len() < self.job.modalities.len() {
            return Ok(());
        }
        let (split, score) = (open.split, score(&open.answers));
        self.evaluation = None;
        let turn = self.machine.position().turn;
        self.report.evaluations.push(EvaluationRecord { turn, split, score: score.to_bits() });
        self.give(now, Input::EvaluationFinished { evaluation: id, score })
    }

    fn part_saved(
        &mut self,
        now: Time,
        worker: WorkerId,
        turn: Turn,
        part: crate::report::Digest,
    ) -> Result<(), Refusal> {
        let modality = self.machine.modality_of(&worker).cloned();
        let modality = modality.ok_or_else(|| Refusal::Shell("the sender has no place in this job".to_owned()))?;
        let name = format!("encoder-{modality}");
        let cut = self.cut.as_mut().filter(|cut| cut.turn == turn && !cut.state.contains_key(&name));
        let cut = cut.ok_or_else(|| Refusal::Shell(format!("`{name}` of checkpoint {turn} is not waited for")))?;
        // Before the machine judges, because the last part has the manifest written at once.
        cut.state.insert(name, part);
        self.give(now, Input::PartSaved { worker, turn })
    }

    /// Carries out one effect. An error is something that must never be.
    fn carry_out(&mut self, now: Time, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Assign { worker, .. } => self.send(worker, ToWorker::Assign),
            Effect::Started | Effect::Ready { .. } | Effect::ForgetHeads { .. } | Effect::ReportWait => {}
            Effect::Replay { .. }
            | Effect::Offer { .. }
            | Effect::Keep { .. }
            | Effect::Evict { .. }
            | Effect::AbandonEvaluation { .. } => return Err(format!("nobody was lost, but: {effect:?}")),
            Effect::Grant { worker, turn, progress, .. } => self.grant(worker, turn, progress)?,
            Effect::Apply { turn, modality, progress, alpha } => self.apply(now, &turn, &modality, progress, alpha)?,
            Effect::EndTurn { modality, .. } => self.end_turn(&modality)?,
            Effect::ResetProjector => self.head.reset_projector(),
            Effect::Evaluate { evaluation, split } => {
                self.no_step_is_open("an evaluation")?;
                self.evaluation = Some(Evaluation { id: evaluation, split, answers: BTreeMap::new() });
                let head = self.head.head().clone();
                self.send_all(&ToWorker::Evaluate { evaluation, split, head });
            }
            Effect::Snapshot { turn } => {
                self.no_step_is_open("a checkpoint")?;
                self.cut = Some(Cut { turn, state: head_state(&self.head)?, score: None });
            }
            Effect::SavePart { worker, turn } => self.send(worker, ToWorker::SavePart { turn }),
            Effect::WriteManifest { turn } => {
                let score = self.machine.cut().filter(|cut| cut.turn() == turn && cut.is_whole()).map(|cut| cut.score);
                let cut = self.cut.as_mut().filter(|cut| cut.turn == turn);
                let never = || format!("checkpoint {turn} was never begun");
                cut.ok_or_else(never)?.score = score.ok_or_else(never)?;
                self.sent.push((self.spent, Sent::Manifest(turn)));
            }
            Effect::Finish(outcome) => {
                self.no_step_is_open("the end")?;
                let position = self.machine.position();
                (self.report.outcome, self.report.best) = (Some(outcome), position.best);
                self.report.counts = counts(position);
                self.report.state = head_state(&self.head)?;
            }
        }
        Ok(())
    }

    fn grant(&mut self, worker: WorkerId, turn: TurnRef, progress: Progress) -> Result<(), String> {
        self.no_step_is_open(&format!("a grant to `{worker}`"))?;
        if turn.head_version != self.head.version() {
            return Err(format!("version {} was granted of a head of {}", turn.head_version, self.head.version()));
        }
        let head = if self.bug == Some(Bug::GrantsTheHeadBefore) { &self.head_before } else { self.head.head() };
        let head = head.clone();
        self.granted = Some(Granted { turn: turn.clone(), applied: false });
        self.send(worker, ToWorker::Grant { turn, head, progress });
        Ok(())
    }

    fn apply(
        &mut self,
        now: Time,
        turn: &TurnRef,
        modality: &ModalityName,
        progress: Progress,
        alpha: f64,
    ) -> Result<(), String> {
        let granted = self.granted.take().filter(|granted| granted.turn == *turn && !granted.applied);
        granted.ok_or_else(|| format!("{turn:?} was applied but is not the step that is granted"))?;
        if self.job.schedule.mode == ScheduleMode::Sequential {
            self.granted = Some(Granted { turn: turn.clone(), applied: true });
        }
        let contribution = self.incoming.take().ok_or("a step was to be applied that nobody sent")?;
        let optimizer = &self.job.head.optimizer;
        let lr_factor = learning_rate::factor(&optimizer.schedule, progress.epoch, progress.epochs);
        self.head_before = self.head.head().clone();
        let times = if self.bug == Some(Bug::AppliesTwice) { 2 } else { 1 };
        for _ in 0..times {
            let context = StepContext { lr_factor, alpha };
            self.head.apply(modality, &contribution, context).map_err(|error| error.to_string())?;
        }
        if self.head.version() != turn.head_version.next() {
            return Err(format!("a step of head version {} led to {}", turn.head_version, self.head.version()));
        }
        self.spent = Span(self.spent.0 + self.apply.draw().0);
        self.applied.push((now + self.spent, modality.clone()));
        self.report.steps.push(StepRecord::new(turn.turn, turn.step.0, modality, contribution.loss, &self.head));
        Ok(())
    }

    fn end_turn(&mut self, modality: &ModalityName) -> Result<(), String> {
        if self.head.open_turn() != Some(modality) {
            return Err(format!("the turn of `{modality}` ended while {:?} had one", self.head.open_turn()));
        }
        self.head.end_turn();
        self.spent = Span(self.spent.0 + self.fold.draw().0);
        Ok(())
    }

    fn no_step_is_open(&self, what: &str) -> Result<(), String> {
        match &self.granted {
            Some(granted) => Err(format!("{what} while {granted:?} is open")),
            None => Ok(()),
        }
    }

    fn send(&mut self, worker: WorkerId, message: ToWorker) {
        self.sent.push((self.spent, Sent::ToWorker(worker, message)));
    }

    fn send_all(&mut self, message: &ToWorker) {
        for worker in self.members.clone() {
            self.send(worker, message.clone());
        }
    }
}

fn job_id() -> JobId {
    JobId::try_from("simulated-1").expect("a good id")
}
