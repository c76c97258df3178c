//! The job's shared head: the one place where it changes. It owns the head with its projector and optimizer, the replay
//! buffer of the heads that were granted, and the contribution that the turn machine is looking at.
//!
//! Invariants: the head is stepped with a checked contribution only, and only when the turn machine says so; a head is
//! in the replay buffer before the next one exists. It knows no worker and sends nothing: it makes messages.

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
    /// How full the machine believes the replay buffer to be.
    level: ReplayBufferLevel,
    threads: HeadThreads,
    weights: Weights,
    /// The contribution whose header the machine is looking at.
    incoming: Option<CheckedContribution<f32>>,
}

/// Where a grant stands in the job.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) turn: TurnRef,
    pub(super) lease: Lease,
    pub(super) progress: Progress,
}

/// A step that the turn machine wants applied.
#[derive(Debug)]
pub(super) struct StepToApply {
    pub(super) turn: TurnRef,
    pub(super) modality: ModalityName,
    pub(super) at: StepContext,
}

/// A step that the head took.
#[derive(Debug)]
pub(super) struct AppliedStep {
    pub(super) report: StepReport,
    pub(super) loss: f64,
    pub(super) accuracy: f64,
    pub(super) projector_trace: f64,
    /// The replay buffer is fuller than the machine knew.
    pub(super) level: Option<Input>,
}

/// What the header of a contribution says, beside the turn machine's own fields.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) turn: TurnRef,
    pub(super) micro_shard: MicroShard,
    pub(super) samples: u32,
    pub(super) loss: f64,
}

impl JobHead {
    /// `steps` is how many steps a turn has.
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

    /// Number of classes, C.
    pub(super) fn classes(&self) -> usize {
        self.head.head().classes()
    }

    /// W and b as they are now.
    pub(super) fn share(&self) -> Arc<Head<f32>> {
        self.head.share()
    }

    /// Checks a contribution in full, and holds it until [`Self::release`]: the turn machine judges its header
    /// meanwhile, and nothing is half applied.
    ///
    /// # Errors
    /// The message is malformed.
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

    /// Drops the contribution that was received, if the machine did not have it applied.
    pub(super) fn release(&mut self) {
        self.incoming = None;
    }

    /// Projects the received contribution and steps the head: the one place where a turn's gradient meets the shared
    /// head.
    ///
    /// # Errors
    /// Nothing was received, or the head does not take it. The head is as before.
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

    /// Folds the turn that is over into P, and prepares what the next turn, of modality `next`, multiplies by.
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

    /// The message that has a worker's encoder replay a step, under the head that was granted for it.
    ///
    /// # Errors
    /// The replay buffer cannot be read.
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

    /// Copies what a checkpoint needs of the head.
    ///
    /// # Errors
    /// A turn is open.
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
