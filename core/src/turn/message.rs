//! What goes into the turn machine and what comes out of it.

use serde::{Deserialize, Serialize};

use crate::ids::{EvaluationId, HeadVersion, Lease, MicroShard, ModalityName, Split, Turn, TurnRef, WorkerId};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// The pool lent this worker to the job.
    Joined {
        /// Who.
        worker: WorkerId,
        /// For which modality.
        modality: ModalityName,
    },
    /// A worker has its data open and its encoder ready.
    Prepared {
        /// Who.
        worker: WorkerId,
        /// Samples that have its modality.
        samples: SplitSizes,
        /// Steps that its encoder has behind it.
        steps_done: u64,
    },
    /// A worker gave a sign of life.
    Heartbeat {
        /// Who.
        worker: WorkerId,
        /// Grows with everything that it gets done.
        progress: u64,
        /// Whether it has something to do.
        busy: bool,
    },
    /// A worker was asked to stop, and is to be let go.
    Leaving {
        /// Who.
        worker: WorkerId,
    },
    /// A worker's connection ended.
    Left {
        /// Who.
        worker: WorkerId,
        /// In words.
        why: String,
    },
    /// A worker cannot go on with the job.
    WorkerFailed {
        /// Who.
        worker: WorkerId,
        /// In words.
        reason: String,
        /// Whether it may go well if it is tried again: the store did not answer, say.
        again: bool,
    },
    /// A head contribution came in; its tensors are checked already.
    Contribution(ContributionHeader),
    /// The encoder has taken its own step from a contribution that was applied, for the first time or again.
    Learned {
        /// Whose.
        worker: WorkerId,
        /// The step.
        turn: TurnRef,
    },
    /// The shell has gone through the split.
    EvaluationFinished {
        /// Which evaluation.
        evaluation: EvaluationId,
        /// What checkpoints are compared by: the accuracy of the job's fusion rule.
        score: f64,
    },
    /// A worker has written its part of a checkpoint.
    FilesSaved {
        /// Who.
        worker: WorkerId,
        /// Which checkpoint.
        turn: Turn,
    },
    /// The manifest is in the store: the checkpoint exists.
    CheckpointWritten {
        /// Which checkpoint.
        turn: Turn,
    },
    /// How much room there is for heads that may have to be granted again.
    Room(HeadRoom),
    /// The shell could not do what was asked (store, evaluation).
    ShellFailed {
        /// In words.
        reason: String,
    },
    /// A person asks the job to stop at the next turn boundary.
    Stop,
    /// The same, and not to wait for workers that are not there.
    StopNow,
    /// The same, and not for a checkpoint either that is being written: its store does not take it.
    StopWithout,
    /// Time has passed.
    Tick,
    /// Much time has passed in which nobody could be heard: the coordinator stood still, not the workers.
    Awake,
}

/// Room for heads that may have to be granted again, until a checkpoint lets go of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeadRoom {
    /// Plenty.
    Ample,
    /// A checkpoint is to be cut at the next turn boundary, whether one is due or not.
    Low,
    /// And no turn begins before there is more.
    Full,
}

/// A head contribution without its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContributionHeader {
    /// Who computed it.
    pub worker: WorkerId,
    /// What it answers.
    pub turn: TurnRef,
    /// Which piece of the batch.
    pub micro_shard: MicroShard,
    /// Samples in it.
    pub samples: u32,
    /// Mean cross-entropy, nats.
    pub loss: f64,
}

/// Samples of each split that have a modality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSizes {
    /// Learnt from.
    pub train: u64,
    /// Chosen by.
    pub validation: u64,
    /// Reported on.
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

/// Something that the shell is to do, in the order given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Tell the worker which job and modality it has.
    Assign {
        /// Who.
        worker: WorkerId,
        /// Its modality.
        modality: ModalityName,
        /// Its hold on the place.
        lease: Lease,
    },
    /// Every worker is ready; training begins or goes on.
    Started,
    /// Send a head that was granted before, for a step that the head has taken already: only the encoder is to take it again.
    Replay {
        /// Who.
        worker: WorkerId,
        /// Which step, with the version of the head.
        turn: TurnRef,
        /// The lease it works under.
        lease: Lease,
        /// Where the job stood.
        progress: Progress,
    },
    /// A worker's encoder is where the head is.
    Ready {
        /// Who.
        worker: WorkerId,
        /// Its modality.
        modality: ModalityName,
        /// Steps that it took again.
        replayed: u64,
    },
    /// A worker has shown no life, or no progress, or has failed and is left alone: offer its place to others, who get it when one
    /// comes.
    Offer {
        /// Who.
        worker: WorkerId,
        /// Its modality.
        modality: ModalityName,
        /// In words.
        why: String,
    },
    /// Its place is on offer no more.
    Keep {
        /// Who.
        worker: WorkerId,
    },
    /// Have a worker let go of the job.
    Evict {
        /// Who.
        worker: WorkerId,
        /// In words.
        why: String,
    },
    /// Send the head to the worker for one step.
    Grant {
        /// Who.
        worker: WorkerId,
        /// Which step.
        turn: TurnRef,
        /// The lease it works under.
        lease: Lease,
        /// Where the job stands.
        progress: Progress,
    },
    /// Step the shared head with the contribution that was just taken.
    Apply {
        /// Which step.
        turn: TurnRef,
        /// Whose.
        modality: ModalityName,
        /// Where the job stands before the step.
        progress: Progress,
        /// α for the fold of its mean features.
        alpha: f64,
    },
    /// Fold the turn's mean features into the projector.
    EndTurn {
        /// Which turn.
        turn: Turn,
        /// Whose.
        modality: ModalityName,
    },
    /// P ← I.
    ResetProjector,
    /// Go through a split with every worker.
    Evaluate {
        /// Which evaluation.
        evaluation: EvaluationId,
        /// Over what.
        split: Split,
    },
    /// Forget the evaluation: a worker is lost. Another one goes through the split from its beginning.
    AbandonEvaluation {
        /// Which evaluation.
        evaluation: EvaluationId,
    },
    /// Cut a checkpoint: keep the head as it is now, and write it while training goes on.
    Snapshot {
        /// Turns applied so far: the checkpoint's name.
        turn: Turn,
    },
    /// Have a worker write its part of the checkpoint.
    SaveFiles {
        /// Who.
        worker: WorkerId,
        /// Which checkpoint.
        turn: Turn,
    },
    /// All parts are there: write the manifest of the [`super::TurnMachine::cut`].
    WriteManifest {
        /// Which checkpoint.
        turn: Turn,
    },
    /// Nobody will be granted these heads again.
    ForgetHeads {
        /// Ascending.
        versions: Vec<HeadVersion>,
    },
    /// Say what is waited for.
    ReportWait,
    /// The job is over; let the workers go.
    Finish(Outcome),
}

/// Where a job stands, in epochs; learning rates follow it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done, as a real number.
    pub epoch: f64,
    /// Epochs of the whole job, as a real number.
    pub epochs: f64,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It reached its length.
    Succeeded,
    /// It was asked to stop.
    Stopped,
    /// It cannot go on.
    Failed {
        /// In words.
        reason: String,
    },
}

/// Why an input changed nothing. Each becomes a typed answer on the wire.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// From another coordinator's reign.
    #[error("term {given} does not reign; the term is {current}")]
    StaleTerm {
        /// What the message carried.
        given: u64,
        /// What is true.
        current: u64,
    },
    /// The step was taken already.
    #[error("turn {turn} step {step} is already applied")]
    AlreadyApplied {
        /// The turn it names.
        turn: Turn,
        /// The step it names.
        step: u32,
    },
    /// The turn or step is not the one granted.
    #[error("turn {given} step {given_step} was not granted; turn {current} step {current_step} is open")]
    StaleTurn {
        /// The turn it names.
        given: Turn,
        /// The step it names.
        given_step: u32,
        /// The open turn.
        current: Turn,
        /// The open step.
        current_step: u32,
    },
    /// The turn was granted anew since.
    #[error("attempt {given} is not open; attempt {current} is")]
    StaleAttempt {
        /// What the message carried.
        given: u32,
        /// What is true.
        current: u32,
    },
    /// Computed against another head.
    #[error("head version {given} was not granted; version {current} was")]
    StaleHead {
        /// What the message carried.
        given: u64,
        /// What is true.
        current: u64,
    },
    /// Another worker has the turn.
    #[error("the turn is `{holder}`'s, not `{worker}`'s")]
    NotYourTurn {
        /// Who sent it.
        worker: WorkerId,
        /// Whose it is.
        holder: WorkerId,
    },
    /// The step is open, but nobody has been granted it.
    #[error("turn {turn} step {step} is not granted to anybody yet")]
    NotGranted {
        /// The turn it names.
        turn: Turn,
        /// The step it names.
        step: u32,
    },
    /// Nobody learns from that step any more, or yet.
    #[error("no contribution to turn {turn} step {step} is being learnt from")]
    NotLearning {
        /// The turn it names.
        turn: Turn,
        /// The step it names.
        step: u32,
    },
    /// The sender has no place in this job.
    #[error("worker `{worker}` has no place in this job")]
    NotAMember {
        /// Who sent it.
        worker: WorkerId,
    },
    /// Nobody has this modality, or somebody else has its place.
    #[error("there is no free place for `{modality}` in this job")]
    NoPlace {
        /// The modality.
        modality: ModalityName,
    },
    /// The job is not in a phase that takes this.
    #[error("not expected while the job is {phase}")]
    Unexpected {
        /// The phase in words.
        phase: &'static str,
    },
    /// The message contradicts itself or the job.
    #[error("{what}: expected {expected}, got {given}")]
    Malformed {
        /// Which field.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it was.
        given: String,
    },
}
