//! The activity of the computing thread, for heartbeats.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::ids::{JobId, Term};
use antiphon_proto::stream;
use antiphon_proto::v1;

/// The contents of heartbeats.
#[derive(Debug, Default)]
pub(crate) struct Status {
    job: Mutex<Option<(JobId, Term)>>,
    steps_done: AtomicU64,
    progress: AtomicU64,
    busy: AtomicBool,
    store_error: Mutex<StoreError>,
}

/// The last error of a store request that is being retried. Empty if there is none. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreError(Arc<Mutex<String>>);

impl Status {
    pub(crate) fn heartbeat(&self) -> v1::Heartbeat {
        v1::Heartbeat {
            job: self.job().map(|(job, _)| job.to_string()).unwrap_or_default(),
            steps_done: self.steps_done.load(Ordering::Relaxed),
            progress: self.progress.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed),
            store_error: self.store_error.lock().unwrap_or_else(PoisonError::into_inner).told(),
        }
    }

    /// Starts a store request. Heartbeats report its errors, and no longer those of earlier requests.
    pub(super) fn begin_store_request(&self) -> StoreError {
        let store_error = StoreError::default();
        *self.store_error.lock().unwrap_or_else(PoisonError::into_inner) = store_error.clone();
        store_error
    }

    /// The assigned job and its term.
    pub(crate) fn job(&self) -> Option<(JobId, Term)> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_job(&self, job: Option<(JobId, Term)>) {
        self.begin_store_request();
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }

    pub(super) fn set_steps_done(&self, steps: u64) {
        self.steps_done.store(steps, Ordering::Relaxed);
    }

    /// Counts progress. `busy` says whether more work follows.
    pub(super) fn got_on(&self, busy: bool) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.busy.store(busy, Ordering::Relaxed);
    }
}

impl StoreError {
    /// Sets the error, shortened to the limit of a heartbeat.
    pub(super) fn note(&self, text: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream::store_error(text);
    }

    /// Clears the error after the request succeeded or was abandoned.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn told(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_report_the_last_store_error_shortened() {
        let status = Status::default();
        let given_up = status.begin_store_request();
        given_up.note("a\nb");
        assert_eq!(status.heartbeat().store_error, "a b");
        let store_error = status.begin_store_request();
        given_up.note("an earlier request's");
        assert_eq!(status.heartbeat().store_error, "");
        store_error.note(&"é".repeat(600));
        assert_eq!(status.heartbeat().store_error, "é".repeat(512));
        store_error.clear();
        assert_eq!(status.heartbeat().store_error, "");
    }
}
