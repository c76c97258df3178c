//! A modality's slot in the job: the worker in it, and how far that has come.

use serde::{Deserialize, Serialize};

use super::history::PastStep;
use crate::ids::{Lease, Step, Turn, WorkerId};
use crate::time::{Span, Time};

/// A worker in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) worker: WorkerId,
    pub(super) lease: Lease,
    pub(super) state: SlotState,
    /// The step whose contribution the head has taken and from which the encoder is still learning, as far as it has said.
    pub(super) learning: Option<(Turn, Step)>,
    /// When it gave a sign of life, and when it had done something since the sign before.
    pub(super) heard: Time,
    pub(super) progressed: Time,
    /// What it counts its progress by, and whether it has something to do.
    pub(super) progress: u64,
    pub(super) busy: bool,
    /// Its place is offered to others.
    pub(super) expired: Option<LeaseExpiry>,
    /// It was asked to stop, and gives its place up after the open step.
    pub(super) leaving: bool,
}

/// How far a worker has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum SlotState {
    /// It has failed, and is assigned the job again then.
    BackingOff { until: Time },
    /// It opens its data and loads its encoder, as it was after `base` steps.
    Opening { base: u64 },
    /// Its encoder has taken `done` of the steps that the head has; `at` is the one under way.
    Replaying { base: u64, done: u64, at: Option<PastStep> },
    /// Its encoder is where the head is.
    Ready,
}

/// Why a place is offered to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LeaseExpiry {
    /// No sign of life.
    NoHeartbeat,
    /// Signs of life, but nothing done.
    NoProgress,
}

impl Slot {
    pub(super) fn new(worker: WorkerId, lease: Lease, state: SlotState, now: Time) -> Self {
        Self {
            worker,
            lease,
            state,
            learning: None,
            heard: now,
            progressed: now,
            progress: 0,
            busy: false,
            expired: None,
            leaving: false,
        }
    }

    /// Whether its encoder is where the head is.
    pub(super) fn is_ready(&self) -> bool {
        self.state == SlotState::Ready
    }

    /// Whether it can be given the head.
    pub(super) fn is_able(&self) -> bool {
        self.is_ready() && self.lapse.is_none() && !self.leaving
    }

    /// Steps that its encoder has behind it, where the head has taken `behind` of this modality; none while it is loaded.
    pub(super) fn steps_taken(&self, behind: u64) -> Option<u64> {
        match self.state {
            SlotState::BackingOff { .. } | SlotState::Opening { .. } => None,
            SlotState::Replaying { done, .. } => Some(done),
            SlotState::Ready => Some(behind),
        }
    }

    /// Steps before which it needs none again; none where it needs none at all.
    pub(super) fn replays_from(&self) -> Option<u64> {
        match self.state {
            SlotState::Opening { base } => Some(base),
            SlotState::Replaying { done, .. } => Some(done),
            SlotState::BackingOff { .. } | SlotState::Ready => None,
        }
    }

    /// Until when it is left alone.
    pub(super) fn backs_off_until(&self) -> Option<Time> {
        match self.state {
            SlotState::BackingOff { until } => Some(until),
            _ => None,
        }
    }

    /// When its place is offered to others unless it gives a sign of life, or of progress if it has something to do.
    pub(super) fn deadline(&self, ttl: Span, turn: Span, granted: Option<Time>) -> Option<(Time, LeaseExpiry)> {
        // Nothing is heard of whoever has not been assigned anything yet.
        if self.expired.is_some() || self.backs_off_until().is_some() {
            return None;
        }
        let silent = (self.heard + ttl, LeaseExpiry::NoHeartbeat);
        // How long it takes to open data depends on the data, not on a turn.
        let works = !matches!(self.state, SlotState::Opening { .. }) && (self.busy || granted.is_some());
        let stuck = works.then(|| (granted.unwrap_or(Time(0)).max(self.progressed) + turn, LeaseExpiry::NoProgress));
        Some(stuck.filter(|stuck| stuck.0 < silent.0).unwrap_or(silent))
    }
}
