//! Errors of the store, for the job's status: a retry policy waits in silence otherwise.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_store::retry::RetryPolicy;
use tokio::time::Instant;
use tracing::warn;

/// A store that has failed for so long, and within [`RECENT`], is not waited for by a job that is asked to stop now.
const LONG: Duration = Duration::from_secs(15);
/// Longer than one attempt and the back-off before it.
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
    /// A retry policy that notes its failures here.
    pub(super) fn noting(&self, retry: RetryPolicy) -> RetryPolicy {
        let noted = self.clone();
        retry.on_retry(move |retry| {
            warn!(%retry, "a request to the store failed and is retried");
            noted.note(retry.to_string());
        })
    }

    /// The store has failed.
    pub(super) fn note(&self, message: String) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = Instant::now();
        let first = failing.as_ref().map_or(last, |failing| failing.first);
        *failing = Some(Failing { message, first, last });
    }

    /// Whether the store has failed for long, and recently.
    pub(super) fn last_long(&self) -> bool {
        let failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().is_some_and(|failing| failing.first.elapsed() >= LONG && failing.last.elapsed() < RECENT)
    }

    /// The message of the last error.
    pub(super) fn message(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|failing| failing.message.clone())
    }

    /// The store works.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
