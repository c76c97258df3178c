//! What is to happen in a simulation, and what waits for the coordinator.

use antiphon_core::ids::{Term, Turn};
use antiphon_core::time::Span;

use crate::coordinator::Inbound;
use crate::learner::Learner;
use crate::store::Manifest;
use crate::worker::{ToCoordinator, ToWorker};

/// Something that is to happen.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Something of a worker is there for the coordinator to look at. A copy or a lie is not genuine, and belongs to a
    /// tenure.
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
    /// A coordinator learns that a connection is gone.
    IsGone {
        at: usize,
        connection: u64,
    },
    /// A message is there for a worker to look at.
    Reaches {
        to: usize,
        connection: u64,
        message: ToWorker,
    },
    /// A worker is done with what it was busy with.
    WorkerDone {
        at: usize,
        life: u64,
    },
    /// A worker's part is in the store, or will not be.
    Uploaded {
        at: usize,
        tenure: u64,
        term: Term,
        turn: Turn,
        part: Box<Learner>,
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
    /// A new worker of the modality is there.
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
    /// The coordinator is done with the last thing it looked at.
    CoordinatorDone {
        term: Term,
    },
    /// A deadline of the coordinator's machine is over.
    Deadline,
    /// What was to happen to a worker that has stopped or hangs.
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

/// What an event tells of a job that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Something is on its way, or is being done.
    Work,
    /// A fault is to pass.
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

/// Something that the coordinator has yet to look at.
pub(crate) struct Item {
    pub(crate) inbound: Inbound,
    /// Of a copy or a lie: whom it seems to be of, and the tenure that it belongs to.
    pub(crate) doubtful: Option<(usize, u64)>,
}

impl From<Inbound> for Item {
    fn from(inbound: Inbound) -> Self {
        Self { inbound, doubtful: None }
    }
}
