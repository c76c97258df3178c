//! A modality's slot in the job: the worker in it, and how far that has come.

use serde::{Deserialize, Serialize};

use super::history::PastStep;
use crate::ids::{Lease, Step, Turn, WorkerId};
use crate::time::{Span, Time};

/// A worker in its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) lease: Lease,
    pub(super) standing: Standing,
    /// The step whose contribution the head has taken and from which the encoder is still learning, as far as it has said.
    pub(super) learning: Option<(Turn, Step)>,
    /// When it gave a sign of life, and when it had done something since the sign before.
    pub(super) heard: Time,
    pub(super) progressed: Time,
    /// What it counts its progress by, and whether it has something to do.
    pub(super) progress: u64,
    pub(super) busy: bool,
    /// Its place is offered to others.
    pub(super) lapse: Option<Lapse>,
    /// It was asked to stop, and gives its place up after the open step.
    pub(super) leaving: bool,
}

/// How far a worker has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It has failed, and is assigned the job again then.
    Paused { until: Time },
    /// It opens its data and loads its encoder, as it was after `base` steps.
    Opening { base: u64 },
    /// Its encoder has taken `done` of the steps that the head has; `at` is the one under way.
    Replaying { base: u64, done: u64, at: Option<PastStep> },
    /// Its encoder is where the head is.
    Ready,
}

/// Why a place is offered to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Lapse {
    /// No sign of life.
    Silent,
    /// Signs of life, but nothing done.
    Stuck,
}

impl Member {
    pub(super) fn new(worker: WorkerId, lease: Lease, standing: Standing, now: Time) -> Self {
        Self {
            worker,
            lease,
            standing,
            learning: None,
            heard: now,
            progressed: now,
            progress: 0,
            busy: false,
            lapse: None,
            leaving: false,
        }
    }

    /// Whether its encoder is where the head is.
    pub(super) fn is_ready(&self) -> bool {
        self.standing == Standing::Ready
    }

    /// Whether it can be given the head.
    pub(super) fn is_able(&self) -> bool {
        self.is_ready() && self.lapse.is_none() && !self.leaving
    }

    /// Steps that its encoder has behind it, where the head has taken `behind` of this modality; none while it is loaded.
    pub(super) fn steps_behind(&self, behind: u64) -> Option<u64> {
        match self.standing {
            Standing::Paused { .. } | Standing::Opening { .. } => None,
            Standing::Replaying { done, .. } => Some(done),
            Standing::Ready => Some(behind),
        }
    }

    /// Steps before which it needs none again; none where it needs none at all.
    pub(super) fn begins_at(&self) -> Option<u64> {
        match self.standing {
            Standing::Opening { base } => Some(base),
            Standing::Replaying { done, .. } => Some(done),
            Standing::Paused { .. } | Standing::Ready => None,
        }
    }

    /// Until when it is left alone.
    pub(super) fn paused(&self) -> Option<Time> {
        match self.standing {
            Standing::Paused { until } => Some(until),
            _ => None,
        }
    }

    /// When its place is offered to others unless it gives a sign of life, or of progress if it has something to do.
    pub(super) fn deadline(&self, ttl: Span, turn: Span, granted: Option<Time>) -> Option<(Time, Lapse)> {
        // Nothing is heard of whoever has not been assigned anything yet.
        if self.lapse.is_some() || self.paused().is_some() {
            return None;
        }
        let silent = (self.heard + ttl, Lapse::Silent);
        // How long it takes to open data depends on the data, not on a turn.
        let works = !matches!(self.standing, Standing::Opening { .. }) && (self.busy || granted.is_some());
        let stuck = works.then(|| (granted.unwrap_or(Time(0)).max(self.progressed) + turn, Lapse::Stuck));
        Some(stuck.filter(|stuck| stuck.0 < silent.0).unwrap_or(silent))
    }
}
