//! The future events of a simulation, and the inputs that wait for the coordinator.

use antiphon_core::ids::{Term, Turn};
use antiphon_core::time::Span;

use crate::coordinator::Inbound;
use crate::learner::Learner;
use crate::store::Manifest;
use crate::worker::{ToCoordinator, ToWorker};

/// A future event.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A worker's message reaches the coordinator. A copy or a forged message is not genuine, and belongs to a tenure.
    Arrives {
        from: usize,
        connection: u64,
        inbound: Inbound,
        genuine: bool,
        tenure: u64,
    },
    /// A message to a coordinator of an older term.
    ArrivesLate {
        inbound: Inbound,
    },
    /// A coordinator learns that a connection has ended.
    IsGone {
        at: usize,
        connection: u64,
    },
    /// A message reaches a worker.
    Reaches {
        to: usize,
        connection: u64,
        message: ToWorker,
    },
    /// A worker has finished its current work.
    WorkerDone {
        at: usize,
        life: u64,
    },
    /// A worker's files are in the store, or will not be.
    Uploaded {
        at: usize,
        tenure: u64,
        term: Term,
        turn: Turn,
        encoder: Box<Learner>,
        fails: bool,
    },
    /// A worker's heartbeat is due.
    Beat {
        at: usize,
        connection: u64,
    },
    /// A worker dials.
    Connects {
        at: usize,
    },
    /// A new worker of the modality starts.
    Starts {
        modality: usize,
    },
    /// A manifest reaches the store; the answer takes this long.
    Stores {
        manifest: Box<Manifest>,
        answer: Span,
    },
    /// A coordinator hears that its manifest is written.
    Written {
        term: Term,
        turn: Turn,
    },
    /// The coordinator has processed its last input.
    CoordinatorDone {
        term: Term,
    },
    /// A deadline of the coordinator's machine has passed.
    Deadline,
    /// An event of a worker that is paused or hangs, for later.
    Postponed(Box<Event>),
    /// The user asks the job to stop.
    AskedToStop {
        now: bool,
    },
    CoordinatorBegins,
    OldCoordinatorWakes {
        on_their_way: Vec<Inbound>,
    },
}

/// What a pending event means for a job that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Something is on its way, or is being done.
    Work,
    /// A fault will end.
    Fault,
    /// Time passes.
    Timer,
}

impl Event {
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Beat { .. } | Self::Deadline | Self::ArrivesLate { .. } => Class::Timer,
            Self::Arrives { inbound: Inbound::Says { message, .. }, genuine, .. } => match **message {
                ToCoordinator::Heartbeat { .. } => Class::Timer,
                _ if *genuine => Class::Work,
                _ => Class::Timer,
            },
            Self::Postponed(_)
            | Self::IsGone { .. }
            | Self::Connects { .. }
            | Self::Starts { .. }
            | Self::AskedToStop { .. }
            | Self::CoordinatorBegins
            | Self::OldCoordinatorWakes { .. } => Class::Fault,
            _ => Class::Work,
        }
    }
}

/// An input that the coordinator has not processed yet.
pub(crate) struct Item {
    pub(crate) inbound: Inbound,
    /// For a copy or a forged message: its apparent sender, and the tenure that it belongs to.
    pub(crate) doubtful: Option<(usize, u64)>,
}

impl From<Inbound> for Item {
    fn from(inbound: Inbound) -> Self {
        Self { inbound, doubtful: None }
    }
}
