//! Trouble with the store, for the job's status: patience waits in silence otherwise.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_core::digest::sha256;
use antiphon_core::ids::JobId;
use antiphon_store::patience::Patience;
use tracing::warn;

/// What the store's last failure was, until a checkpoint is written. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Patience with the store of this job that tells of its setbacks. No two jobs pause for the same time.
    pub(super) fn patience(&self, most: Duration, job: &JobId) -> Patience {
        let digest = sha256(job.as_str().as_bytes());
        let seed = digest.0.iter().take(8).fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
        let (told, job) = (self.clone(), job.clone());
        Patience::new(most, seed).telling(move |setback| {
            warn!(%job, "{setback}");
            *told.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(setback.to_string());
        })
    }

    /// What is going on, and what trouble there is with the store.
    pub(super) fn beside(&self, activity: String) -> String {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(trouble) => format!("{activity}; {trouble}"),
            None => activity,
        }
    }

    /// The store works.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
