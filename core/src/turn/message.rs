//! The inputs of the turn machine, its effects, and its reasons to reject an input.

use serde::{Deserialize, Serialize};

use crate::ids::{EvaluationId, HeadVersion, Lease, MicroShard, ModalityName, Split, Turn, TurnRef, WorkerId};

/// Something that happened and that the machine acts on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// The pool has given a slot to this worker.
    Joined {
        /// The worker.
        worker: WorkerId,
        /// The modality of the slot.
        modality: ModalityName,
    },
    /// A worker has opened its data and loaded its encoder.
    Prepared {
        /// The worker.
        worker: WorkerId,
        /// Samples that have its modality.
        samples: SplitSizes,
        /// Steps that its encoder has taken.
        steps_done: u64,
    },
    /// A worker is connected.
    Heartbeat {
        /// The worker.
        worker: WorkerId,
        /// A counter that grows with everything that the worker completes.
        progress: u64,
        /// Whether it has work to do.
        busy: bool,
    },
    /// A worker was asked to stop, and asks the coordinator to evict it.
    Leaving {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker's connection has ended.
    Left {
        /// The worker.
        worker: WorkerId,
        /// A human-readable reason.
        why: String,
    },
    /// A worker has failed at its work for this job.
    WorkerFailed {
        /// The worker.
        worker: WorkerId,
        /// A human-readable reason.
        reason: String,
        /// Whether a retry may succeed, for example because the store did not answer.
        transient: bool,
    },
    /// A head contribution has arrived; its tensors are already checked.
    Contribution(ContributionHeader),
    /// An encoder has taken a step, for the first time or as a replay.
    Learned {
        /// The encoder's worker.
        worker: WorkerId,
        /// The step.
        turn: TurnRef,
    },
    /// The shell has evaluated a split.
    EvaluationFinished {
        /// The evaluation.
        evaluation: EvaluationId,
        /// The accuracy of the job's fusion rule, by which checkpoints are compared.
        score: f64,
    },
    /// A worker has written its files of a checkpoint.
    FilesSaved {
        /// The worker.
        worker: WorkerId,
        /// The checkpoint's turn.
        turn: Turn,
    },
    /// The manifest is in the store: the checkpoint exists.
    CheckpointWritten {
        /// The checkpoint's turn.
        turn: Turn,
    },
    /// The replay buffer has reached this level.
    ReplayBuffer(ReplayBufferLevel),
    /// The shell could not carry out an effect, for example because of a store error.
    ShellFailed {
        /// A human-readable reason.
        reason: String,
    },
    /// The user asks the job to stop at the next turn boundary, with a checkpoint.
    Stop,
    /// As [`Self::Stop`], but without waiting for missing workers.
    StopNow,
    /// As [`Self::StopNow`], but without waiting for the pending checkpoint either: its store does not accept it.
    StopWithoutCheckpoint,
    /// Time has passed.
    Tick,
    /// A stall of the coordinator has ended, in which it received no messages.
    StallEnded,
}

/// How full the replay buffer is. It holds the heads that a replay may need, until a checkpoint makes them unnecessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplayBufferLevel {
    /// The buffer has space for many more heads.
    Normal,
    /// A checkpoint starts at the next turn boundary, whether one is due or not.
    High,
    /// As [`Self::High`], and no turn starts until a checkpoint has freed the buffer.
    Full,
}

/// A head contribution without its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContributionHeader {
    /// The worker that computed it.
    pub worker: WorkerId,
    /// The granted step that it answers.
    pub turn: TurnRef,
    /// Its micro-shard of the batch.
    pub micro_shard: MicroShard,
    /// The number of samples.
    pub samples: u32,
    /// Mean cross-entropy of the batch, in nats.
    pub loss: f64,
}

/// Samples of each split that have a modality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSizes {
    /// Samples of the training split.
    pub train: u64,
    /// Samples of the validation split.
    pub validation: u64,
    /// Samples of the test split.
    pub test: u64,
}

impl SplitSizes {
    /// The size of one split.
    #[must_use]
    pub fn of(&self, split: Split) -> u64 {
        match split {
            Split::Train => self.train,
            Split::Validation => self.validation,
            Split::Test => self.test,
        }
    }
}

/// Something that the shell has to do. Effects are carried out in the order given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Assign the job and a modality to the worker.
    Assign {
        /// The worker.
        worker: WorkerId,
        /// Its modality.
        modality: ModalityName,
        /// The lease under which it works.
        lease: Lease,
    },
    /// Every worker is ready; training starts or resumes.
    Started,
    /// Send the head that was granted for an earlier step, so that the encoder takes that step again. The head does not
    /// change.
    Replay {
        /// The worker.
        worker: WorkerId,
        /// The step, with its head version.
        turn: TurnRef,
        /// The lease under which it works.
        lease: Lease,
        /// The progress of the job at that step.
        progress: Progress,
    },
    /// A worker's encoder has all of its modality's steps.
    Ready {
        /// The worker.
        worker: WorkerId,
        /// Its modality.
        modality: ModalityName,
        /// Steps that it has replayed.
        replayed: u64,
    },
    /// Give the slot to another worker when one is free: its lease has expired, or its worker failed and backs off.
    ReleaseSlot {
        /// The worker in the slot.
        worker: WorkerId,
        /// Its modality.
        modality: ModalityName,
        /// A human-readable reason.
        why: String,
    },
    /// The slot is no longer released.
    ReclaimSlot {
        /// The worker in the slot.
        worker: WorkerId,
    },
    /// Tell a worker that the job no longer needs it.
    Evict {
        /// The worker.
        worker: WorkerId,
        /// A human-readable reason.
        why: String,
    },
    /// Send the head to the worker for one step.
    Grant {
        /// The worker.
        worker: WorkerId,
        /// The step.
        turn: TurnRef,
        /// The lease under which it works.
        lease: Lease,
        /// The progress of the job.
        progress: Progress,
    },
    /// Step the shared head with the contribution that was just accepted.
    Apply {
        /// The step.
        turn: TurnRef,
        /// The modality of the contribution.
        modality: ModalityName,
        /// The progress of the job before the step.
        progress: Progress,
        /// α for the fold of its mean features.
        alpha: f64,
    },
    /// Fold the turn's mean features into the projector.
    EndTurn {
        /// The turn that is over.
        turn: Turn,
        /// Its modality.
        modality: ModalityName,
        /// Whether the fold may wait until this input's messages are sent: the next step is granted, and its worker
        /// needs W and b only.
        may_wait: bool,
    },
    /// Reset the projector: P ← I.
    ResetProjector,
    /// Evaluate a split with every worker.
    Evaluate {
        /// The number of the evaluation.
        evaluation: EvaluationId,
        /// The split.
        split: Split,
    },
    /// Abandon the evaluation, because a worker is lost. Another evaluation of the split follows.
    AbandonEvaluation {
        /// The number of the evaluation.
        evaluation: EvaluationId,
    },
    /// Snapshot the head, and write it while training continues.
    Snapshot {
        /// Turns applied so far, which names the checkpoint.
        turn: Turn,
    },
    /// Tell a worker to write its files of the checkpoint.
    SaveFiles {
        /// The worker.
        worker: WorkerId,
        /// The checkpoint's turn.
        turn: Turn,
    },
    /// All files are written: write the manifest of [`super::TurnMachine::pending_checkpoint`].
    WriteManifest {
        /// The checkpoint's turn.
        turn: Turn,
    },
    /// Remove these heads from the replay buffer.
    ForgetHeads {
        /// In ascending order.
        versions: Vec<HeadVersion>,
    },
    /// Emit an event that says what the job waits for.
    ReportWait,
    /// The job is over; release its workers.
    Finish(Outcome),
}

/// The progress of a job in epochs, which learning rates depend on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done, as a real number.
    pub epoch: f64,
    /// Epochs of the whole job. A real number, because the length may be given in turns.
    pub epochs: f64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It reached its length.
    Succeeded,
    /// The user asked it to stop.
    Stopped,
    /// It could not continue.
    Failed {
        /// A human-readable reason.
        reason: String,
    },
}

/// Why an input was rejected. Each reason has its own code on the wire.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// The message is from another coordinator's term.
    #[error("term {given} is not the current term, which is {current}")]
    StaleTerm {
        /// The term in the message.
        given: u64,
        /// The current term.
        current: u64,
    },
    /// The step is applied already.
    #[error("turn {turn} step {step} is already applied")]
    AlreadyApplied {
        /// The turn in the message.
        turn: Turn,
        /// The step in the message.
        step: u32,
    },
    /// The turn or step is not the open one.
    #[error("turn {given} step {given_step} was not granted; turn {current} step {current_step} is open")]
    StaleTurn {
        /// The turn in the message.
        given: Turn,
        /// The step in the message.
        given_step: u32,
        /// The open turn.
        current: Turn,
        /// The open step.
        current_step: u32,
    },
    /// The step was granted again since.
    #[error("attempt {given} is not open; attempt {current} is")]
    StaleAttempt {
        /// The attempt in the message.
        given: u32,
        /// The open attempt.
        current: u32,
    },
    /// The contribution was computed with another head.
    #[error("head version {given} was not granted; version {current} was")]
    StaleHead {
        /// The head version in the message.
        given: u64,
        /// The head version that was granted.
        current: u64,
    },
    /// The step is granted to another worker.
    #[error("the step is granted to `{holder}`, not to `{worker}`")]
    NotYourTurn {
        /// The sender.
        worker: WorkerId,
        /// The worker that was granted the step.
        holder: WorkerId,
    },
    /// The step is open, but is not granted to a worker.
    #[error("turn {turn} step {step} is not granted yet")]
    NotGranted {
        /// The turn in the message.
        turn: Turn,
        /// The step in the message.
        step: u32,
    },
    /// The encoder does not learn from this step, or no longer does.
    #[error("the encoder is not learning from turn {turn} step {step}")]
    NotLearning {
        /// The turn in the message.
        turn: Turn,
        /// The step in the message.
        step: u32,
    },
    /// The sender has no slot in this job.
    #[error("worker `{worker}` has no slot in this job")]
    NoSlot {
        /// The sender.
        worker: WorkerId,
    },
    /// The job has no such modality, or another worker has its slot.
    #[error("there is no free slot for `{modality}` in this job")]
    SlotTaken {
        /// The modality.
        modality: ModalityName,
    },
    /// The job is in a phase that does not accept this.
    #[error("the message is not expected while the job is {phase}")]
    Unexpected {
        /// The phase.
        phase: &'static str,
    },
    /// The message contradicts itself or the job.
    #[error("{what}: expected {expected}, got {given}")]
    Malformed {
        /// The field.
        what: &'static str,
        /// What the field should be.
        expected: String,
        /// What the field is.
        given: String,
    },
}
