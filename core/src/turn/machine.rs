//! The state of the turn machine, and its queries.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::failures::Failures;
use super::history::History;
use super::message::{Effect, Outcome, Rejected, ReplayBufferLevel, SplitSizes};
use super::pending_checkpoint::PendingCheckpoint;
use super::position::Position;
use super::slot::Slot;
use super::wait::Wait;
use crate::ids::{Attempt, EvaluationId, JobId, Lease, ModalityName, Split, Step, Term, Turn, WorkerId};
use crate::spec::{JobSpec, ScheduleMode};
use crate::time::Time;

/// The state of one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnMachine {
    pub(super) job: JobId,
    pub(super) term: Term,
    pub(super) spec: JobSpec,
    pub(super) slots: BTreeMap<ModalityName, Slot>,
    /// Samples of each modality whose worker has reported them.
    pub(super) samples: BTreeMap<ModalityName, SplitSizes>,
    pub(super) position: Position,
    pub(super) history: History,
    /// The checkpoint that is being written.
    pub(super) pending_checkpoint: Option<PendingCheckpoint>,
    /// The turn of the newest checkpoint, complete or pending, or of the one that the job resumed from.
    pub(super) last_checkpoint: Option<Turn>,
    /// The level of the replay buffer that the shell reported last.
    pub(super) replay_buffer: ReplayBufferLevel,
    pub(super) failures: BTreeMap<ModalityName, Failures>,
    pub(super) stop_requested: bool,
    pub(super) next_lease: Lease,
    pub(super) next_evaluation: EvaluationId,
    pub(super) wait: Option<Wait>,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Phase {
    Gathering,
    Training(OpenStep),
    Boundary { duties: VecDeque<Duty>, score: Option<f64> },
    Finished(Outcome),
}

/// The one step that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OpenStep {
    pub(super) modality: ModalityName,
    pub(super) step: Step,
    /// The number of this grant, or of the next one while no worker holds the head.
    pub(super) attempt: Attempt,
    /// The worker that was granted the step; none while there is no worker for it.
    pub(super) holder: Option<WorkerId>,
    pub(super) granted: Time,
    /// Whether the head has taken the step and the encoder still learns from it. Only in a sequential job.
    pub(super) applied: bool,
}

/// A task at a turn boundary. The first duty is in progress, or waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Duty {
    /// Evaluate a split with every worker. In progress once it has a number.
    Evaluate { evaluation: Option<EvaluationId>, split: Split },
    /// Start a checkpoint, once the last one is written.
    Save,
    /// Wait until a checkpoint has freed the replay buffer.
    FreeBuffer,
    /// Wait until the last checkpoint is written, then finish.
    Finish(Outcome),
}

impl TurnMachine {
    /// The machine of a new job, or of a job that resumes at a checkpoint's position.
    #[must_use]
    pub fn new(job: JobId, term: Term, spec: JobSpec, resume: Option<Position>, now: Time) -> Self {
        let last_checkpoint = resume.as_ref().map(|position| position.turn);
        let position = resume.unwrap_or_default();
        Self {
            job,
            term,
            slots: BTreeMap::new(),
            samples: BTreeMap::new(),
            history: History::from(&position.steps_done),
            pending_checkpoint: None,
            last_checkpoint,
            replay_buffer: ReplayBufferLevel::Normal,
            failures: BTreeMap::new(),
            position,
            stop_requested: false,
            next_lease: Lease(0),
            next_evaluation: EvaluationId(0),
            wait: Some(Wait::starting(now)),
            phase: Phase::Gathering,
            spec,
        }
    }

    /// The name of the phase: `waiting`, `training`, `evaluating`, `saving`, `finishing`, `finished`.
    #[must_use]
    pub fn phase_name(&self) -> &'static str {
        match &self.phase {
            Phase::Gathering => "waiting",
            Phase::Training(_) => "training",
            Phase::Boundary { duties, .. } => match duties.front() {
                Some(Duty::Evaluate { .. }) => "evaluating",
                Some(Duty::Save | Duty::FreeBuffer) => "saving",
                Some(Duty::Finish(_)) | None => "finishing",
            },
            Phase::Finished(_) => "finished",
        }
    }

    /// The position of training.
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
    pub fn pending_checkpoint(&self) -> Option<&PendingCheckpoint> {
        self.pending_checkpoint.as_ref()
    }

    /// How the job ended. None until then.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Finished(outcome) => Some(outcome),
            Phase::Gathering | Phase::Training(_) | Phase::Boundary { .. } => None,
        }
    }

    /// The worker in a modality's slot.
    #[must_use]
    pub fn worker(&self, modality: &ModalityName) -> Option<&WorkerId> {
        self.slots.get(modality).map(|slot| &slot.worker)
    }

    /// The modality of a worker that has a slot.
    #[must_use]
    pub fn modality_of(&self, worker: &WorkerId) -> Option<&ModalityName> {
        self.slots.iter().find(|(_, slot)| slot.worker == *worker).map(|(name, _)| name)
    }

    /// Samples of each split, of the modalities whose worker has reported them.
    #[must_use]
    pub fn samples(&self) -> &BTreeMap<ModalityName, SplitSizes> {
        &self.samples
    }

    /// Checks the invariants of this module that can be seen from one state.
    ///
    /// # Errors
    /// A description of the first broken invariant.
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
        self.check_slots()?;
        self.history.check(&self.position.steps_done)
    }

    pub(super) fn not_finished(&self) -> Result<(), Rejected> {
        match &self.phase {
            Phase::Finished(_) => Err(self.unexpected()),
            Phase::Gathering | Phase::Training(_) | Phase::Boundary { .. } => Ok(()),
        }
    }

    pub(super) fn unexpected(&self) -> Rejected {
        Rejected::Unexpected { phase: self.phase_name() }
    }

    pub(super) fn finish(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        self.phase = Phase::Finished(outcome.clone());
        effects.push(Effect::Finish(outcome));
    }
}
