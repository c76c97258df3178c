//! The turn machine: who may step the shared head, and when. It owns the protocol state of one job and nothing else:
//! no tensors, no sockets, no clock.
//!
//! ```text
//!              all places taken, all workers prepared
//!   gathering ────────────────────────────────────────▶ training ◀──────────────┐
//!                                                          │ epoch or job ends,  │ duties done
//!                                                          ▼ period, or stop     │
//!                                                      boundary ────────────────┘
//!                                                          │ last duty
//!                                                          ▼
//!                    a worker fails or leaves          finished
//! ```
//!
//! Training is one loop: grant a step, take its contribution, apply it, grant the next. Pipelined, the next is granted at once,
//! while the encoder that gave the contribution learns from it; sequential, when that encoder has learnt and the turn is
//! folded into the projector. At a turn boundary the job may have *duties*: go through a split, write a checkpoint, finish.
//! They are done one after the other.
//!
//! Invariants, checked by [`TurnMachine::check_invariants`] after every transition in tests:
//!
//! 1. A step is applied once: every [`Effect::Apply`] names the head version after the one before it.
//! 2. A rejected input changes nothing.
//! 3. While training exactly one step is open; in every other phase none is. Pipelined, an open step is not applied yet.
//! 4. Steps of all modalities add up to the head version.
//! 5. A finished job stays finished.

mod activity;
mod boundary;
pub mod epoch;
mod gathering;
mod message;
#[cfg(test)]
mod testing;
mod training;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

pub use message::{ContributionHeader, Effect, Input, Outcome, Progress, Rejected, SplitSizes};

use crate::ids::{Attempt, EvaluationId, HeadVersion, JobId, Lease, ModalityName, Split, Step, Term, Turn, WorkerId};
use crate::spec::{JobSpec, ScheduleMode};
use crate::time::{Span, Time};
use epoch::EpochPlan;

/// How often a job that waits says so again.
const WAITING_REPORT: Span = Span::from_secs(10);

/// The state of one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnMachine {
    job: JobId,
    term: Term,
    spec: JobSpec,
    members: BTreeMap<ModalityName, Member>,
    position: Position,
    /// The turn of the checkpoint that the job began from, which need not be written again.
    resumed_at: Option<Turn>,
    stop_requested: bool,
    next_lease: Lease,
    next_evaluation: EvaluationId,
    phase: Phase,
}

/// Where training stands: what a checkpoint keeps of the machine, and all that a resumed job needs of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Turns applied.
    pub turn: Turn,
    /// Steps that the head has taken.
    pub head_version: HeadVersion,
    /// Steps that each encoder has taken.
    pub steps_done: BTreeMap<ModalityName, u64>,
    /// The epoch that is under way, from 0.
    pub epoch: u64,
    /// Turns of it that are applied.
    pub turn_in_epoch: u64,
    /// Its layout.
    pub plan: EpochPlan,
    /// Sum and count of the losses of its steps.
    pub losses: BTreeMap<ModalityName, LossSum>,
    /// The best validation score of a checkpoint, and its turn.
    pub best: Option<(f64, Turn)>,
}

/// A mean in the making.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LossSum {
    /// Σ of the steps' mean losses, nats.
    pub sum: f64,
    /// Steps.
    pub steps: u64,
}

/// A worker in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    worker: WorkerId,
    lease: Lease,
    /// None until it is prepared.
    samples: Option<SplitSizes>,
    /// The step whose contribution the head has taken and from which the encoder is still learning, as far as it has said.
    learning: Option<(Turn, Step)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Phase {
    Gathering { since: Time, reported: Time },
    Training(OpenStep),
    Boundary { duties: VecDeque<Duty>, score: Option<f64> },
    Finished(Outcome),
}

/// The one step that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OpenStep {
    modality: ModalityName,
    step: Step,
    attempt: Attempt,
    granted: Time,
    /// The head has taken it; the encoder learns from it. Only where the schedule is sequential.
    applied: bool,
}

/// What is to be done at a boundary; the first is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Duty {
    Evaluate { evaluation: EvaluationId, split: Split },
    Save { missing: Vec<WorkerId>, writing: bool },
    Finish(Outcome),
}

/// Why a job is not computing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// In words, complete: `waiting for 1 \`audio\` worker: 0 registered`.
    pub reason: String,
    /// For how long so far.
    pub waited: Span,
}

impl TurnMachine {
    /// A job that has not begun, or that goes on from a checkpoint's position.
    #[must_use]
    pub fn new(job: JobId, term: Term, spec: JobSpec, resume: Option<Position>, now: Time) -> Self {
        Self {
            job,
            term,
            spec,
            members: BTreeMap::new(),
            resumed_at: resume.as_ref().map(|position| position.turn),
            position: resume.unwrap_or_default(),
            stop_requested: false,
            next_lease: Lease(0),
            next_evaluation: EvaluationId(0),
            phase: Phase::Gathering { since: now, reported: now },
        }
    }

    /// Takes one input and appends what is to be done because of it.
    ///
    /// # Errors
    /// An input that does not fit the state is rejected with its reason; the state and `effects` are as before.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        match input {
            Input::Joined { worker, modality } => self.join(worker, modality, effects),
            Input::Prepared { worker, samples, steps_done } => {
                self.prepared(now, &worker, samples, steps_done, effects)
            }
            Input::Left { worker, why } => self
                .member_lost(&worker, effects, |modality| format!("worker `{worker}` (`{modality}`) is gone: {why}")),
            Input::WorkerFailed { worker, reason } => {
                self.member_lost(&worker, effects, |modality| format!("`{modality}` worker `{worker}`: {reason}"))
            }
            Input::Contribution(header) => self.contribution(now, &header, effects),
            Input::Learned { worker, turn } => self.learned(now, &worker, &turn, effects),
            Input::EvaluationFinished { evaluation, score } => {
                self.evaluation_finished(now, evaluation, score, effects)
            }
            Input::PartSaved { worker, turn } => self.part_saved(&worker, turn, effects),
            Input::CheckpointWritten { turn } => self.checkpoint_written(now, turn, effects),
            Input::ShellFailed { reason } => {
                self.not_finished()?;
                self.finish(Outcome::Failed { reason }, effects);
                Ok(())
            }
            Input::Stop => self.stop(effects),
            Input::Tick => {
                self.tick(now);
                Ok(())
            }
        }
    }

    /// When the machine next wants a [`Input::Tick`], and why.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Time, &'static str)> {
        match &self.phase {
            Phase::Gathering { reported, .. } => Some((*reported + WAITING_REPORT, "say again what is waited for")),
            Phase::Training(_) | Phase::Boundary { .. } | Phase::Finished(_) => None,
        }
    }

    /// The phase in a word: `waiting`, `training`, `evaluating`, `saving`, `finishing`, `finished`.
    #[must_use]
    pub fn phase_name(&self) -> &'static str {
        match &self.phase {
            Phase::Gathering { .. } => "waiting",
            Phase::Training(_) => "training",
            Phase::Boundary { duties, .. } => match duties.front() {
                Some(Duty::Evaluate { .. }) => "evaluating",
                Some(Duty::Save { .. }) => "saving",
                Some(Duty::Finish(_)) | None => "finishing",
            },
            Phase::Finished(_) => "finished",
        }
    }

    /// Where training stands.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The job's specification.
    #[must_use]
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// How the job ended, once it has.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Finished(outcome) => Some(outcome),
            Phase::Gathering { .. } | Phase::Training(_) | Phase::Boundary { .. } => None,
        }
    }

    /// The worker in a modality's place.
    #[must_use]
    pub fn worker(&self, modality: &ModalityName) -> Option<&WorkerId> {
        self.members.get(modality).map(|member| &member.worker)
    }

    /// The modality of a worker that has a place.
    #[must_use]
    pub fn modality_of(&self, worker: &WorkerId) -> Option<&ModalityName> {
        self.members.iter().find(|(_, member)| member.worker == *worker).map(|(name, _)| name)
    }

    /// Samples of each split, of the modalities whose worker is prepared.
    #[must_use]
    pub fn samples(&self) -> BTreeMap<ModalityName, SplitSizes> {
        self.members.iter().filter_map(|(name, member)| Some((name.clone(), member.samples?))).collect()
    }

    /// States the invariants of this module that one state can be asked for; the text names the one that is broken.
    ///
    /// # Errors
    /// The first broken invariant, in words.
    pub fn check_invariants(&self) -> Result<(), String> {
        let steps: u64 = self.position.steps_done.values().sum();
        if steps != self.position.head_version.0 {
            return Err(format!("{steps} steps are done but the head took {}", self.position.head_version));
        }
        if let Phase::Training(open) = &self.phase {
            let whose = self.position.plan.modality(self.position.turn_in_epoch);
            if whose != Some(&open.modality) {
                return Err(format!("`{}` has a step of a turn that is {whose:?}'s", open.modality));
            }
            if open.step.0 >= self.spec.schedule.turn_batches {
                return Err(format!("step {} of a turn of {}", open.step, self.spec.schedule.turn_batches));
            }
            if open.applied && self.spec.schedule.mode == ScheduleMode::Pipelined {
                return Err(format!("step {} is applied and still open", open.step));
            }
        }
        if let Phase::Boundary { duties, .. } = &self.phase
            && duties.is_empty()
        {
            return Err("a boundary without a duty".to_owned());
        }
        Ok(())
    }

    /// The member that a worker is.
    fn member_mut(&mut self, worker: &WorkerId) -> Result<&mut Member, Rejected> {
        let member = self.members.values_mut().find(|member| member.worker == *worker);
        member.ok_or_else(|| Rejected::NotAMember { worker: worker.clone() })
    }

    fn not_finished(&self) -> Result<(), Rejected> {
        match &self.phase {
            Phase::Finished(_) => Err(self.unexpected()),
            Phase::Gathering { .. } | Phase::Training(_) | Phase::Boundary { .. } => Ok(()),
        }
    }

    fn unexpected(&self) -> Rejected {
        Rejected::Unexpected { phase: self.phase_name() }
    }

    fn member_lost(
        &mut self,
        worker: &WorkerId,
        effects: &mut Vec<Effect>,
        reason: impl Fn(&ModalityName) -> String,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality =
            self.modality_of(worker).cloned().ok_or_else(|| Rejected::NotAMember { worker: worker.clone() })?;
        self.members.remove(&modality);
        self.finish(Outcome::Failed { reason: reason(&modality) }, effects);
        Ok(())
    }

    fn finish(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.phase = Phase::Finished(outcome.clone());
        effects.push(Effect::Finish(outcome));
    }
}
