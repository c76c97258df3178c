//! A modality's slot in the job: the worker in it, its state and its lease.

use serde::{Deserialize, Serialize};

use super::history::PastStep;
use crate::ids::{Lease, Step, Turn, WorkerId};
use crate::time::{Span, Time};

/// A slot and the worker in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) worker: WorkerId,
    pub(super) lease: Lease,
    pub(super) state: SlotState,
    /// The step that the head has taken and from which the encoder still learns, according to the worker's last report.
    pub(super) learning: Option<(Turn, Step)>,
    /// The time of its last message, and of the last one with progress.
    pub(super) heard: Time,
    pub(super) progressed: Time,
    /// Its progress counter, and whether it has work to do.
    pub(super) progress: u64,
    pub(super) busy: bool,
    /// Why the slot is released to other workers, if it is.
    pub(super) expired: Option<LeaseExpiry>,
    /// Whether the worker was asked to stop and gives up the slot after the open step.
    pub(super) leaving: bool,
}

/// What the worker in a slot does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum SlotState {
    /// It has failed. At this time it is assigned the job again.
    BackingOff { until: Time },
    /// It opens its data and loads its encoder with the state after `base` steps.
    Opening { base: u64 },
    /// Its encoder was loaded with `base` of the modality's steps and now has `done` of them. `at` is the step that it
    /// replays.
    Replaying { base: u64, done: u64, at: Option<PastStep> },
    /// Its encoder has all of the modality's steps.
    Ready,
}

/// Why a lease has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LeaseExpiry {
    /// The worker sends no messages.
    NoHeartbeat,
    /// The worker sends heartbeats, but makes no progress.
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

    /// Whether its encoder has all of the modality's steps.
    pub(super) fn is_ready(&self) -> bool {
        self.state == SlotState::Ready
    }

    /// Whether it can be granted a step.
    pub(super) fn is_able(&self) -> bool {
        self.is_ready() && self.expired.is_none() && !self.leaving
    }

    /// Steps that its encoder has, if the head has taken `all` steps of this modality. None while the encoder is being
    /// loaded.
    pub(super) fn steps_taken(&self, all: u64) -> Option<u64> {
        match self.state {
            SlotState::BackingOff { .. } | SlotState::Opening { .. } => None,
            SlotState::Replaying { done, .. } => Some(done),
            SlotState::Ready => Some(all),
        }
    }

    /// The first step that it has to replay, if it has to replay any.
    pub(super) fn replays_from(&self) -> Option<u64> {
        match self.state {
            SlotState::Opening { base } => Some(base),
            SlotState::Replaying { done, .. } => Some(done),
            SlotState::BackingOff { .. } | SlotState::Ready => None,
        }
    }

    /// The end of its back-off, if it backs off.
    pub(super) fn backs_off_until(&self) -> Option<Time> {
        match self.state {
            SlotState::BackingOff { until } => Some(until),
            _ => None,
        }
    }

    /// When its lease expires unless the worker sends a heartbeat or, if it has work to do, makes progress.
    pub(super) fn deadline(&self, ttl: Span, turn: Span, granted: Option<Time>) -> Option<(Time, LeaseExpiry)> {
        // A worker that backs off is assigned nothing, so it sends nothing.
        if self.expired.is_some() || self.backs_off_until().is_some() {
            return None;
        }
        let no_heartbeat = (self.heard + ttl, LeaseExpiry::NoHeartbeat);
        // The time to open data depends on the data, not on `turn_deadline`.
        let works = !matches!(self.state, SlotState::Opening { .. }) && (self.busy || granted.is_some());
        let no_progress =
            works.then(|| (granted.unwrap_or(Time(0)).max(self.progressed) + turn, LeaseExpiry::NoProgress));
        Some(no_progress.filter(|expiry| expiry.0 < no_heartbeat.0).unwrap_or(no_heartbeat))
    }
}
