//! The search for the checkpoint that a job resumes from after its coordinator was lost: its newest one, or the one
//! that it was submitted with. The search retries transient errors, and reports in the job's status and events what it
//! waits for.

use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_core::ids::Turn;
use antiphon_core::spec::SpecErrors;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::{StorageError, StoreOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::submission::SubmitError;
use crate::events::EventLog;
use crate::job::contract::JobStatus;
use crate::job::resume::{ResumeError, Resumed};
use crate::job::specification::Specification;
use crate::journal::{JobRecord, Journal, JournalError};

/// The timeout of an attempt.
pub(super) const ATTEMPT: Duration = Duration::from_secs(30);
/// The pause between two attempts.
pub(super) const BACK_OFF: Duration = Duration::from_secs(10);

/// Why a job cannot resume.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoveryError {
    /// The specification in the journal is invalid.
    #[error(transparent)]
    Specification(#[from] SpecErrors),
    /// The job cannot be started.
    #[error(transparent)]
    Start(#[from] SubmitError),
    /// The folder of its checkpoints cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Its checkpoints cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its checkpoint does not fit the job.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The job has written a checkpoint that is missing now.
    #[error(
        "`{folder}` holds no checkpoint, but the job has written one of turn {turn} there; check that the folder is \
         mounted"
    )]
    NoCheckpoint {
        /// The folder of its checkpoints.
        folder: String,
        /// The turn of the newest checkpoint that it has written.
        turn: Turn,
    },
    /// The store does not answer.
    #[error("the store of `{folder}` does not answer")]
    NoAnswer {
        /// The folder of its checkpoints.
        folder: String,
    },
}

impl RecoveryError {
    /// Whether the search may succeed later. A store that fails or rejects these credentials does not fail the job.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Checkpoint(error) | Self::Resume(ResumeError::Read(error)) => {
                matches!(error, CheckpointError::Request { .. })
            }
            Self::Journal(_) | Self::NoCheckpoint { .. } | Self::NoAnswer { .. } => true,
            // This coordinator may lack credentials, or the system may have no threads left.
            Self::Start(error) => {
                matches!(error, SubmitError::Storage(StorageError::Settings { .. }) | SubmitError::Threads(_))
            }
            Self::Specification(_) | Self::Storage(_) | Self::Resume(ResumeError::Unfit { .. }) => false,
        }
    }
}

/// The search for the checkpoint of one job.
pub(super) struct Search<'a> {
    pub(super) journal: &'a Journal,
    pub(super) record: &'a JobRecord,
    pub(super) store: CheckpointStore,
    pub(super) stores: StoreOptions,
    pub(super) retry: RetryPolicy,
    pub(super) started: Instant,
    pub(super) status: &'a watch::Sender<JobStatus>,
}

impl Search<'_> {
    /// Sets the job's status to what the search does or waits for.
    pub(super) fn tell(&self, what: &str) {
        self.status.send_replace(JobStatus { since: Some(self.started), ..recovering(what) });
    }

    /// The job's own newest checkpoint, otherwise the one that it was submitted with, or none. If the job has written a
    /// checkpoint that is missing, this is an error, because its folder may not be mounted yet.
    pub(super) async fn newest(&self) -> Result<Option<Checkpoint>, RecoveryError> {
        if let Some(newest) = self.store.newest().await? {
            return Ok(Some(newest));
        }
        if let Some(turn) = self.journal.newest_checkpoint(&self.record.job).await? {
            return Err(RecoveryError::NoCheckpoint { folder: self.store.url(), turn });
        }
        match &self.record.resume {
            Some(url) => Ok(Some(Checkpoint::open_with(url, &self.stores, &self.retry).await?)),
            None => Ok(None),
        }
    }

    /// As [`Self::newest`], loaded for a job with this specification.
    async fn load(&self, spec: &Specification) -> Result<Option<Resumed>, RecoveryError> {
        let newest = timeout(ATTEMPT, self.newest()).await;
        let Some(checkpoint) = newest.map_err(|_| self.no_answer())?? else { return Ok(None) };
        self.tell(&format!("loading `{}`", checkpoint.url()));
        Ok(Some(Resumed::load(&checkpoint, spec, &self.store).await?))
    }

    /// As [`Self::load`], with retries of transient errors.
    pub(super) async fn until_loaded(
        &self,
        spec: &Specification,
        events: &EventLog,
    ) -> Result<Option<Resumed>, RecoveryError> {
        let job = &self.record.job;
        let mut told: Option<Duration> = None;
        loop {
            match self.load(spec).await {
                Err(error) if error.is_transient() => self.tell(&error.to_string()),
                loaded => return loaded,
            }
            let reason = self.status.borrow().reason.clone();
            tracing::warn!(%job, reason, "a job cannot resume yet; the coordinator retries");
            let waited = self.started.elapsed();
            // Events are permanent, so a store that fails for a day must not cause thousands. The status always has the
            // last reason.
            if told.is_none_or(|when| waited >= when * 2) {
                told = Some(waited);
                let seconds = waited.as_secs_f64();
                if let Err(error) = events.append(&JobEvent::Waiting { job: job.clone(), reason, seconds }) {
                    tracing::error!(%job, %error, "an event of the job cannot be appended and is lost");
                }
            }
            sleep(BACK_OFF).await;
        }
    }

    /// Whether this is one of the job's own checkpoints.
    pub(super) fn is_own(&self, turn: Turn, url: &str) -> bool {
        self.store.checkpoint_url(turn) == url
    }

    pub(super) fn no_answer(&self) -> RecoveryError {
        RecoveryError::NoAnswer { folder: self.store.url() }
    }
}

/// The status of a job that recovers.
pub(super) fn recovering(what: &str) -> JobStatus {
    JobStatus::waiting(format!("recovering: {what}"))
}
