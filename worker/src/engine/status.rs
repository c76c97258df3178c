//! What the engine's thread is doing, for whoever sends heartbeats.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use antiphon_core::ids::{JobId, Term};
use antiphon_proto::v1;

/// What heartbeats tell.
#[derive(Debug, Default)]
pub(crate) struct Status {
    job: Mutex<Option<(JobId, Term)>>,
    steps_done: AtomicU64,
    progress: AtomicU64,
    busy: AtomicBool,
}

impl Status {
    pub(crate) fn heartbeat(&self) -> v1::Heartbeat {
        v1::Heartbeat {
            job: self.job().map(|(job, _)| job.to_string()).unwrap_or_default(),
            steps_done: self.steps_done.load(Ordering::Relaxed),
            progress: self.progress.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed),
        }
    }

    /// The job at hand, and the term in which it was assigned.
    pub(crate) fn job(&self) -> Option<(JobId, Term)> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_job(&self, job: Option<(JobId, Term)>) {
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }

    pub(super) fn set_steps_done(&self, steps: u64) {
        self.steps_done.store(steps, Ordering::Relaxed);
    }

    /// Something is done; the next thing is begun, if there is one.
    pub(super) fn got_on(&self, busy: bool) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.busy.store(busy, Ordering::Relaxed);
    }
}
