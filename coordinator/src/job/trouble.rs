//! Trouble with the store, for the job's status: patience waits in silence otherwise.

use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::ids::JobId;
use antiphon_store::patience::Patience;
use tracing::warn;

/// What the store's last failure was, until a checkpoint is written. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Patience that notes its setbacks here.
    pub(super) fn noting(&self, patience: Patience, job: &JobId) -> Patience {
        let (told, job) = (self.clone(), job.clone());
        patience.telling(move |setback| {
            warn!(%job, "{setback}");
            told.note(setback.to_string());
        })
    }

    /// Something is wrong, in words.
    pub(super) fn note(&self, trouble: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
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
