//! The turn machine: who may step the shared head, and when. It owns the protocol state of one job and nothing else:
//! no tensors, no sockets, no clock.
//!
//! ```text
//!              every place taken, every worker ready
//!   gathering ────────────────────────────────────────▶ training ◀──────────────┐
//!                                                          │ epoch or job ends,  │ duties done
//!                                                          ▼ period, or stop     │
//!                                                      boundary ────────────────┘
//!                                                          │ last duty
//!                                                          ▼
//!                     a fault that would come again     finished
//!
//!   a place:   empty ──joined──▶ opening ──prepared──▶ replaying ──its own steps taken again──▶ ready
//!                ▲       └─▶ paused ─▲ whoever failed just now                                    │
//!                └──── left, replaced, failed, asked to stop ◀────────────────────────────────────┘
//! ```
//!
//! Training is one loop: grant a step, take its contribution, apply it, grant the next. Pipelined, the next is granted at once,
//! while the encoder that gave the contribution learns from it; sequential, when that encoder has learnt and the turn is
//! folded into the projector. At a turn boundary the job may have *duties*: go through a split, cut a checkpoint, finish.
//!
//! **Faults.** A worker that is lost costs its own modality only. Whoever takes its place loads the encoder of the newest
//! complete checkpoint and takes the modality's steps since then again, under the heads that were granted for them; head and
//! other encoders go on meanwhile, until a turn comes that is held up. A worker that falls silent for the lease's time, or
//! shows no progress for the turn's, *lapses*: its place is offered to others, and it keeps it until one comes. What it sends
//! is taken as long as its turn has not been granted again.
//!
//! **Checkpoints** are cut at a turn boundary and written while training goes on ([`Cut`]); one at a time, so that the next
//! one waits for the last, and the job's end for all.
//!
//! Invariants, checked by [`TurnMachine::check_invariants`] after every transition in tests:
//!
//! 1. A step is applied once: every [`Effect::Apply`] names the head version after the one before it.
//! 2. A rejected input changes nothing.
//! 3. While training exactly one step is open; in every other phase none is. Pipelined, an open step is not applied yet.
//! 4. Steps of all modalities add up to the head version.
//! 5. A finished job stays finished.
//! 6. What a replacement has to take again is all there: the steps since the newest complete checkpoint, and since the one
//!    that anybody who is not ready yet began from.

mod activity;
mod boundary;
mod cut;
pub mod epoch;
mod failures;
mod history;
mod members;
mod message;
#[cfg(test)]
mod testing;
mod training;
mod waiting;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

pub use cut::Cut;
pub use history::PastStep;
pub use message::{ContributionHeader, Effect, HeadRoom, Input, Outcome, Progress, Rejected, SplitSizes};
pub use waiting::Waiting;

use crate::ids::{Attempt, EvaluationId, HeadVersion, JobId, Lease, ModalityName, Split, Step, Term, Turn, WorkerId};
use crate::spec::{JobSpec, ScheduleMode};
use crate::time::Time;
use epoch::EpochPlan;
use failures::Failures;
use history::History;
use members::Member;
use waiting::Wait;

/// The state of one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnMachine {
    job: JobId,
    term: Term,
    spec: JobSpec,
    members: BTreeMap<ModalityName, Member>,
    /// Samples of each modality, once a worker has told.
    samples: BTreeMap<ModalityName, SplitSizes>,
    position: Position,
    history: History,
    /// The checkpoint that is being written.
    cut: Option<Cut>,
    /// The turn of the newest checkpoint that was cut, or that the job began from: it need not be cut again.
    cut_at: Option<Turn>,
    /// Room for heads that may have to be granted again.
    room: HeadRoom,
    failures: BTreeMap<ModalityName, Failures>,
    stop_requested: bool,
    next_lease: Lease,
    next_evaluation: EvaluationId,
    wait: Option<Wait>,
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

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Phase {
    Gathering,
    Training(OpenStep),
    Boundary { duties: VecDeque<Duty>, score: Option<f64> },
    Finished(Outcome),
}

/// The one step that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OpenStep {
    modality: ModalityName,
    step: Step,
    /// Which granting this is, or the next one will be.
    attempt: Attempt,
    /// Who has the head for it. Nobody while there is nobody to have it.
    holder: Option<WorkerId>,
    granted: Time,
    /// The head has taken it; the encoder learns from it. Only where the schedule is sequential.
    applied: bool,
}

/// What is to be done at a boundary; the first is under way, or waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Duty {
    /// Under way once it has a number; it needs every worker.
    Evaluate { evaluation: Option<EvaluationId>, split: Split },
    /// Cut a checkpoint, once the last one is written.
    Save,
    /// Wait until a checkpoint makes room for heads.
    Room,
    /// Wait until the last checkpoint is written, and be over.
    Finish(Outcome),
}

impl TurnMachine {
    /// A job that has not begun, or that goes on from a checkpoint's position.
    #[must_use]
    pub fn new(job: JobId, term: Term, spec: JobSpec, resume: Option<Position>, now: Time) -> Self {
        let cut_at = resume.as_ref().map(|position| position.turn);
        let position = resume.unwrap_or_default();
        Self {
            job,
            term,
            members: BTreeMap::new(),
            samples: BTreeMap::new(),
            history: History::from(&position.steps_done),
            cut: None,
            cut_at,
            room: HeadRoom::Ample,
            failures: BTreeMap::new(),
            position,
            stop_requested: false,
            next_lease: Lease(0),
            next_evaluation: EvaluationId(0),
            wait: Some(Wait::begun(now)),
            phase: Phase::Gathering,
            spec,
        }
    }

    /// Takes one input and appends what is to be done because of it.
    ///
    /// # Errors
    /// An input that does not fit the state is rejected with its reason; the state and `effects` are as before.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        match input {
            Input::Joined { worker, modality } => self.join(now, worker, modality, effects)?,
            Input::Prepared { worker, samples, steps_done } => {
                self.prepared(now, &worker, samples, steps_done, effects)?;
            }
            Input::Heartbeat { worker, progress, busy } => self.heartbeat(now, &worker, progress, busy, effects)?,
            Input::Leaving { worker } => self.leaving(now, &worker, effects)?,
            Input::Left { worker, .. } => self.left(&worker, effects)?,
            Input::WorkerFailed { worker, reason, again } => {
                self.worker_failed(now, &worker, &reason, again, effects)?;
            }
            Input::Contribution(header) => self.contribution(now, &header, effects)?,
            Input::Learned { worker, turn } => self.learned(now, &worker, &turn, effects)?,
            Input::EvaluationFinished { evaluation, score } => {
                self.evaluation_finished(now, evaluation, score, effects)?;
            }
            Input::FilesSaved { worker, turn } => self.files_saved(now, &worker, turn, effects)?,
            Input::CheckpointWritten { turn } => self.checkpoint_written(now, turn, effects)?,
            Input::Room(room) => self.set_room(now, room, effects)?,
            Input::ShellFailed { reason } => {
                self.not_finished()?;
                self.finish(Outcome::Failed { reason }, effects);
            }
            Input::Stop => self.stop(false, effects)?,
            Input::StopNow => self.stop(true, effects)?,
            Input::StopWithout => {
                self.not_finished()?;
                self.finish(Outcome::Stopped, effects);
            }
            Input::Tick => self.tick(now, effects),
            Input::Awake => self.awake(now, effects),
        }
        self.note_wait(now);
        Ok(())
    }

    /// The phase in a word: `waiting`, `training`, `evaluating`, `saving`, `finishing`, `finished`.
    #[must_use]
    pub fn phase_name(&self) -> &'static str {
        match &self.phase {
            Phase::Gathering => "waiting",
            Phase::Training(_) => "training",
            Phase::Boundary { duties, .. } => match duties.front() {
                Some(Duty::Evaluate { .. }) => "evaluating",
                Some(Duty::Save | Duty::Room) => "saving",
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

    /// The checkpoint that is being written.
    #[must_use]
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// How the job ended, once it has.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Finished(outcome) => Some(outcome),
            Phase::Gathering | Phase::Training(_) | Phase::Boundary { .. } => None,
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

    /// Samples of each split, of the modalities of which a worker has told.
    #[must_use]
    pub fn samples(&self) -> &BTreeMap<ModalityName, SplitSizes> {
        &self.samples
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
        self.check_members()?;
        self.history.check(&self.position.steps_done)
    }

    fn not_finished(&self) -> Result<(), Rejected> {
        match &self.phase {
            Phase::Finished(_) => Err(self.unexpected()),
            Phase::Gathering | Phase::Training(_) | Phase::Boundary { .. } => Ok(()),
        }
    }

    fn unexpected(&self) -> Rejected {
        Rejected::Unexpected { phase: self.phase_name() }
    }

    fn finish(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.phase = Phase::Finished(outcome.clone());
        effects.push(Effect::Finish(outcome));
    }
}
