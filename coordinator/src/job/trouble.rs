//! Trouble with the store, for the job's status: patience waits in silence otherwise.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_core::ids::JobId;
use antiphon_store::retry::RetryPolicy;
use tokio::time::Instant;
use tracing::warn;

/// A store that has failed for so long, and within [`FRESH`], is not waited for by those who want to wait for nobody.
const LONG: Duration = Duration::from_secs(15);
/// Longer than a try and the pause before it.
const FRESH: Duration = Duration::from_secs(60);

/// What the store's last failure was, until a checkpoint is written. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<Failing>>>);

#[derive(Debug)]
struct Failing {
    /// The last failure, in words, and when it came.
    what: String,
    last: Instant,
    since: Instant,
}

impl Trouble {
    /// RetryPolicy that notes its setbacks here.
    pub(super) fn noting(&self, patience: RetryPolicy, job: &JobId) -> RetryPolicy {
        let (told, job) = (self.clone(), job.clone());
        patience.on_retry(move |retry| {
            warn!(%job, "{retry}");
            told.note(retry.to_string());
        })
    }

    /// Something is wrong, in words.
    pub(super) fn note(&self, trouble: String) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = Instant::now();
        let since = failing.as_ref().map_or(last, |failing| failing.since);
        *failing = Some(Failing { what: trouble, last, since });
    }

    /// Whether the store has failed for long, and does now.
    pub(super) fn is_long(&self) -> bool {
        let failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().is_some_and(|failing| failing.since.elapsed() >= LONG && failing.last.elapsed() < FRESH)
    }

    /// What is wrong, in words.
    pub(super) fn told(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|failing| failing.what.clone())
    }

    /// The store works.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
