//! Carries out the effects of the turn machine. Each owner carries out those of its part.

use antiphon_core::event::{JobEvent, StepEvent};
use antiphon_core::head::StepContext;
use antiphon_core::ids::{Lease, ModalityName, Turn, WorkerId};
use antiphon_core::learning_rate;
use antiphon_core::turn::{Effect, Input, Progress};
use antiphon_proto::v1::{self, coordinator_message::Message};
use tokio::time::Instant;
use tracing::info;

use super::Job;
use super::checkpoints::EvaluationState;
use super::error::{JobError, SaveError};
use super::evaluation::Actions;
use super::head::{AppliedStep, Granted, StepToApply};
use super::times::JobTimes;

impl Job {
    /// Carries out one effect, and adds the resulting inputs of the turn machine.
    pub(super) fn carry_out(&mut self, effect: Effect, inputs: &mut Vec<Input>) -> Result<(), JobError> {
        match effect {
            Effect::Assign { worker, modality, lease } => inputs.extend(self.assign(&worker, &modality, lease)),
            Effect::Started => self.start(),
            Effect::Grant { worker, turn, lease, progress } => {
                let grant = self.head.grant(Granted { turn, lease, progress });
                inputs.extend(self.send(&worker, grant));
                self.times.lap(|times| &mut times.encode);
            }
            Effect::Replay { worker, turn, lease, progress } => {
                let grant = self.head.replay(Granted { turn, lease, progress })?;
                inputs.extend(self.send(&worker, grant));
            }
            Effect::Ready { worker, modality, replayed } => {
                self.membership.ready(worker, modality, replayed, &self.turns);
            }
            Effect::ReleaseSlot { worker, modality, why } => {
                self.membership.release_slot(&worker, modality, why, &self.turns);
            }
            Effect::ReclaimSlot { worker } => self.membership.reclaim_slot(&worker, &self.turns),
            Effect::Evict { worker, why } => self.membership.evict(&worker, why, &self.turns),
            Effect::Apply { turn, modality, progress, alpha } => {
                let at = StepContext { lr_factor: self.lr_factor(progress), alpha };
                inputs.extend(self.apply(StepToApply { turn, modality, at }, progress)?);
            }
            Effect::EndTurn { may_wait: true, .. } => self.after_send.fold = true,
            Effect::EndTurn { may_wait: false, .. } => self.fold(),
            Effect::ResetProjector => self.head.reset_projector(),
            Effect::Evaluate { evaluation, split } => {
                let actions = self.evaluations.begin(evaluation, split, &self.head.share(), &self.turns);
                inputs.extend(self.act(actions));
            }
            Effect::AbandonEvaluation { evaluation } => self.evaluations.abandon(evaluation),
            Effect::Snapshot { turn } => {
                self.begin_checkpoint(turn).map_err(|source| JobError::Checkpoint { turn, source })?;
            }
            Effect::SaveFiles { worker, turn } => {
                let save = self.checkpoints.save_message(turn);
                inputs.extend(self.send(&worker, save));
            }
            Effect::WriteManifest { turn } => {
                let in_use = self.membership.checkpoints_in_use();
                let completing = self.checkpoints.complete(turn, in_use, &self.turns);
                completing.map_err(|source| JobError::Checkpoint { turn, source })?;
            }
            Effect::ForgetHeads { versions } => inputs.extend(self.head.forget(&versions)),
            Effect::ReportWait => self.emit_waiting(),
            Effect::Finish(outcome) => info!(?outcome, "the job has finished"),
        }
        Ok(())
    }

    /// Sends messages, and collects the inputs for the turn machine.
    pub(super) fn act(&mut self, Actions { messages, inputs }: Actions) -> Vec<Input> {
        let mut following: Vec<Input> =
            messages.into_iter().filter_map(|(worker, message)| self.send(&worker, message)).collect();
        following.extend(inputs);
        following
    }

    pub(super) fn send(&mut self, worker: &WorkerId, message: Message) -> Option<Input> {
        self.membership.send(worker, message, &self.turns)
    }

    fn assign(&mut self, worker: &WorkerId, modality: &ModalityName, lease: Lease) -> Option<Input> {
        let newest = self.checkpoints.newest();
        if let Some(saved) = newest {
            self.membership.restores(worker, saved.turn);
        }
        let assign = v1::Assign {
            job: self.context.id.to_string(),
            term: self.context.term.0,
            lease: lease.0,
            modality: modality.to_string(),
            specification: self.context.spec.json().to_string(),
            checkpoints: self.checkpoints.url(),
            restore: newest.map(|saved| saved.url.clone()),
        };
        info!(%worker, %modality, "a worker is assigned to the job");
        self.send(worker, Message::Assign(assign))
    }

    fn start(&mut self) {
        self.times = JobTimes::start();
        self.membership.started();
        self.turns.started = true;
        self.context.emit(&JobEvent::Started {
            job: self.context.id.clone(),
            turn: self.turns.machine.position().turn,
            turns: self.turns.machine.turns_planned(),
            modalities: self.membership.starts(&self.turns),
        });
    }

    fn lr_factor(&self, progress: Progress) -> f64 {
        learning_rate::factor(&self.context.spec.head.optimizer.schedule, progress.epoch, progress.epochs)
    }

    /// Steps the head. The event for the step is emitted after the next worker has its grant.
    fn apply(&mut self, step: StepToApply, progress: Progress) -> Result<Option<Input>, JobError> {
        let AppliedStep { report, loss, accuracy, projector_trace, level } = self.head.apply(&step, &mut self.times)?;
        self.after_send.step = Some(StepEvent {
            job: self.context.id.clone(),
            turn: step.turn.turn,
            step: step.turn.step.0,
            epoch: progress.epoch as u64,
            modality: step.modality,
            loss,
            accuracy,
            gradient_norm: report.gradient_norm,
            projected_ratio: report.projected_ratio,
            projector_trace,
            lr: self.context.spec.head.optimizer.lr * step.at.lr_factor,
        });
        Ok(level)
    }

    fn begin_checkpoint(&mut self, turn: Turn) -> Result<(), SaveError> {
        let started = Instant::now();
        let snapshot = self.head.snapshot()?;
        let tuned_weights = self.evaluations.tuned_weights().cloned();
        let state = EvaluationState { tuned_weights, numerics: self.membership.numerics().clone() };
        self.checkpoints.begin(turn, started, snapshot, state);
        Ok(())
    }

    /// Folds the ended turn into the projector.
    pub(super) fn fold(&mut self) {
        self.head.fold(self.turns.machine.holder(), &mut self.times);
    }

    fn emit_waiting(&self) {
        if let Some(waiting) = self.waiting() {
            let seconds = waiting.waited.to_std().as_secs_f64();
            let job = self.context.id.clone();
            self.context.emit(&JobEvent::Waiting { job, reason: waiting.reason, seconds });
        }
    }
}
