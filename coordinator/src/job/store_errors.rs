//! Store errors for the job's status, because retries alone would be invisible.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_store::retry::RetryPolicy;
use tokio::time::Instant;
use tracing::warn;

/// If a store has failed for this long, and within [`RECENT`], a job that is asked to stop now does not wait for it.
const LONG: Duration = Duration::from_secs(15);
/// It is longer than an attempt and the back-off before it.
const RECENT: Duration = Duration::from_secs(60);

/// The last error of a store, until the store works again. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct StoreErrors(Arc<Mutex<Option<Failing>>>);

#[derive(Debug)]
struct Failing {
    message: String,
    first: Instant,
    last: Instant,
}

impl StoreErrors {
    /// The retry policy, which records its failures here.
    pub(super) fn noting(&self, retry: RetryPolicy) -> RetryPolicy {
        let noted = self.clone();
        retry.on_retry(move |retry| {
            warn!(%retry, "a request to the store failed; the job retries it");
            noted.note(retry.to_string());
        })
    }

    /// Records an error of the store.
    pub(super) fn note(&self, message: String) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = Instant::now();
        let first = failing.as_ref().map_or(last, |failing| failing.first);
        *failing = Some(Failing { message, first, last });
    }

    /// Whether the store has failed for a long time, and recently.
    pub(super) fn last_long(&self) -> bool {
        let failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().is_some_and(|failing| failing.first.elapsed() >= LONG && failing.last.elapsed() < RECENT)
    }

    /// The message of the last error.
    pub(super) fn message(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|failing| failing.message.clone())
    }

    /// Records that the store works.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
