//! The job's shared head, which changes only here. This file owns the head with its projector and optimizer, the replay
//! buffer of granted heads, and the contribution that the turn machine is checking.
//!
//! Invariants: the head is stepped only with a checked contribution, and only by an effect of the turn machine; a head
//! is in the replay buffer before the next one exists. It knows no worker and sends nothing, but creates messages.

mod replay_buffer;

use std::sync::Arc;

use antiphon_core::head::{
    CheckedContribution, Head, HeadFilesError, HeadSnapshot, SharedHead, StepContext, StepReport,
};
use antiphon_core::ids::{HeadVersion, Lease, MicroShard, ModalityName, TurnRef};
use antiphon_core::turn::{Input, Progress, ReplayBufferLevel};
use antiphon_proto::assignment::Grant;
use antiphon_proto::chunks::Followed;
use antiphon_proto::contribution::{self, ContributionLimits};
use antiphon_proto::v1::{self, coordinator_message::Message};

use super::contract::ReplayBufferLimits;
use super::error::JobError;
use super::refusal::Refusal;
use super::times::JobTimes;
use crate::head_threads::{HeadThreads, Weights};
use replay_buffer::ReplayBuffer;

/// The shared head of one job.
#[derive(Debug)]
pub(super) struct JobHead {
    head: SharedHead<f32>,
    replay_buffer: ReplayBuffer,
    /// The level of the replay buffer that was last reported to the machine.
    level: ReplayBufferLevel,
    threads: HeadThreads,
    weights: Weights,
    /// The contribution whose header the machine is checking.
    incoming: Option<CheckedContribution<f32>>,
}

/// The turn, lease and progress of a grant.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) turn: TurnRef,
    pub(super) lease: Lease,
    pub(super) progress: Progress,
}

/// A step that the turn machine applies.
#[derive(Debug)]
pub(super) struct StepToApply {
    pub(super) turn: TurnRef,
    pub(super) modality: ModalityName,
    pub(super) at: StepContext,
}

/// A step that the head has taken.
#[derive(Debug)]
pub(super) struct AppliedStep {
    pub(super) report: StepReport,
    pub(super) loss: f64,
    pub(super) accuracy: f64,
    pub(super) projector_trace: f64,
    /// The new level of the replay buffer, if it has changed.
    pub(super) level: Option<Input>,
}

/// The header of a contribution, besides the turn machine's own fields.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) turn: TurnRef,
    pub(super) micro_shard: MicroShard,
    pub(super) samples: u32,
    pub(super) loss: f64,
}

impl JobHead {
    /// The head of a job whose turns have `steps` steps.
    pub(super) fn new(head: SharedHead<f32>, steps: u32, limits: ReplayBufferLimits, threads: HeadThreads) -> Self {
        let (classes, width) = (head.head().classes(), head.head().width());
        Self {
            replay_buffer: ReplayBuffer::new(classes, width, steps, limits),
            level: ReplayBufferLevel::Normal,
            threads,
            weights: Weights::of(classes, width),
            incoming: None,
            head,
        }
    }

    /// C, the number of classes.
    pub(super) fn classes(&self) -> usize {
        self.head.head().classes()
    }

    /// The current W and b.
    pub(super) fn share(&self) -> Arc<Head<f32>> {
        self.head.share()
    }

    /// Checks a contribution in full, and holds it until [`Self::release`]. The turn machine checks its header in the
    /// meantime, so nothing is half applied.
    ///
    /// # Errors
    /// If the message is malformed.
    pub(super) fn receive(
        &mut self,
        message: &v1::Contribution,
        limits: &ContributionLimits,
        followed: Followed,
    ) -> Result<Received, Refusal> {
        let decoded = self.threads.run(&self.weights, || contribution::decode(message, limits, followed));
        let (turn, micro_shard, contribution) = decoded.map_err(Refusal::malformed)?;
        let received = Received { turn, micro_shard, samples: contribution.samples, loss: contribution.loss };
        self.incoming = Some(contribution);
        Ok(received)
    }

    /// Drops the received contribution, if the machine did not apply it.
    pub(super) fn release(&mut self) {
        self.incoming = None;
    }

    /// Projects the received contribution and steps the head. Only this function applies gradients to the shared head.
    ///
    /// # Errors
    /// If no contribution was received, or the head rejects it. The head is then unchanged.
    pub(super) fn apply(&mut self, step: &StepToApply, times: &mut JobTimes) -> Result<AppliedStep, JobError> {
        let StepToApply { turn, modality, at } = step;
        let contribution = self.incoming.take().ok_or(JobError::NoContribution)?;
        let granted = self.head.share();
        self.threads.run(&self.weights, || self.replay_buffer.add(turn.head_version, granted));
        let level = self.level_change();
        let head = &mut self.head;
        let mut projected = || times.lap(|times| &mut times.project);
        let stepped =
            self.threads.run(&self.weights, || head.apply_checked(modality, &contribution, *at, &mut projected));
        let report =
            stepped.map_err(|source| JobError::Step { turn: turn.turn, modality: modality.clone(), source })?;
        times.lap(|times| &mut times.step);
        times.stepped();
        Ok(AppliedStep {
            report,
            loss: contribution.loss,
            accuracy: f64::from(contribution.correct) / f64::from(contribution.samples.max(1)),
            projector_trace: self.head.projector_trace(),
            level,
        })
    }

    /// Folds the ended turn into P, and prepares P for the next turn, of modality `next`.
    pub(super) fn fold(&mut self, next: Option<&ModalityName>, times: &mut JobTimes) {
        let head = &mut self.head;
        self.threads.run(&self.weights, || {
            head.end_turn();
            if let Some(next) = next {
                head.prepare_for(next);
            }
        });
        times.lap(|times| &mut times.fold);
    }

    /// P ← I.
    pub(super) fn reset_projector(&mut self) {
        self.head.reset_projector();
    }

    /// The message that grants a worker the head for its next step.
    pub(super) fn grant(&self, Granted { turn, lease, progress }: Granted) -> Message {
        let head = self.head.share();
        let grant = Grant { turn, lease, head, progress: progress.epoch, epochs: progress.epochs, replay: false };
        Message::Grant(grant.encode())
    }

    /// The message that lets a worker's encoder replay a step, under the head that was granted for it.
    ///
    /// # Errors
    /// If the replay buffer cannot be read.
    pub(super) fn replay(&mut self, Granted { turn, lease, progress }: Granted) -> Result<Message, JobError> {
        let version = turn.head_version;
        let head = self.threads.run(&self.weights, || self.replay_buffer.get(version));
        let head = head.map_err(JobError::ReplayBuffer)?;
        let grant = Grant { turn, lease, head, progress: progress.epoch, epochs: progress.epochs, replay: true };
        Ok(Message::Grant(grant.encode()))
    }

    /// Frees heads of the replay buffer. Returns its level, if that has changed.
    pub(super) fn forget(&mut self, versions: &[HeadVersion]) -> Option<Input> {
        self.replay_buffer.forget(versions);
        self.level_change()
    }

    /// Copies the head's state for a checkpoint.
    ///
    /// # Errors
    /// If a turn is open.
    pub(super) fn snapshot(&self) -> Result<HeadSnapshot<f32>, HeadFilesError> {
        self.threads.run(&self.weights, || self.head.snapshot())
    }

    /// The replay buffer's level, if it has changed.
    fn level_change(&mut self) -> Option<Input> {
        let level = self.replay_buffer.level();
        let changed = level != self.level;
        self.level = level;
        changed.then_some(Input::ReplayBuffer(level))
    }
}
