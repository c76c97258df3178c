//! The jobs of one coordinator: submit, list, watch, stop. The services are thin layers over it. A program with a
//! coordinator in its own process calls it directly.
//!
//! This state is in memory. The journal has what the next coordinator needs to resume the jobs ([`Coordinator::open`]).
//! When another coordinator has taken over, every job's task is aborted at once, and [`Coordinator::journal_closed`]
//! resolves.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use antiphon_core::ids::{JobId, ModalityName, RequestId, Term, WorkerId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, JobView, RegisteredJob};
use crate::clock;
use crate::config::Config;
use crate::events::EventWatcher;
use crate::head_threads::HeadThreads;
use crate::job::config::JobConfig;
use crate::job::contract::{JobHandle, JobInput, JobStatus};
use crate::journal::{Journal, JournalError};
use crate::workers::pool::{Pool, RegisterError, Registration};

/// Starts the task of a job.
pub type SpawnJob = dyn Fn(JobConfig) -> JobHandle + Send + Sync;

/// There is no such job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this coordinator has no job `{job}`")]
pub struct UnknownJob {
    /// The requested id.
    pub job: JobId,
}

/// Why a request to stop failed.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// There is no such job.
    #[error(transparent)]
    Unknown(#[from] UnknownJob),
    /// The journal cannot store the request.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Why a worker was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterWorkerError {
    /// The coordinator is shutting down.
    #[error("the coordinator is shutting down and accepts no workers")]
    Stopping,
    /// The pool rejects the worker.
    #[error(transparent)]
    Pool(#[from] RegisterError),
}

/// The jobs and workers of this process. Clones share them.
#[derive(Clone)]
pub struct Coordinator {
    pub(super) config: Arc<Config>,
    pub(super) journal: Journal,
    pub(super) spawn: Arc<SpawnJob>,
    pub(super) pool: Pool,
    pub(super) jobs: Arc<Mutex<BTreeMap<JobId, Entry>>>,
    /// The job of each submission that had a request id.
    pub(super) requests: Arc<Mutex<BTreeMap<RequestId, JobId>>>,
    /// The number of the next submission.
    pub(super) submissions: Arc<AtomicU64>,
    /// The number of jobs whose task has not ended.
    pub(super) running: Arc<watch::Sender<usize>>,
    pub(super) stopping: CancellationToken,
    /// Set when the journal is closed for writes.
    pub(super) journal_closed: Arc<watch::Sender<Option<JournalError>>>,
    /// The head threads, which start with the first job.
    pub(super) threads: Arc<Mutex<Option<HeadThreads>>>,
}

impl Coordinator {
    /// A coordinator without jobs or workers. [`crate::job::spawn`] runs its jobs, which end with the process.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_jobs(config, Arc::new(crate::job::spawn))
    }

    /// As [`Coordinator::new`], but `spawn` runs the jobs.
    #[must_use]
    pub fn with_jobs(config: Config, spawn: Arc<SpawnJob>) -> Self {
        Self::with_journal(config, Journal::ephemeral(), spawn)
    }

    pub(super) fn with_journal(config: Config, journal: Journal, spawn: Arc<SpawnJob>) -> Self {
        Self {
            config: Arc::new(config),
            journal,
            spawn,
            pool: Pool::default(),
            jobs: Arc::default(),
            requests: Arc::default(),
            submissions: Arc::default(),
            running: Arc::new(watch::Sender::new(0)),
            stopping: CancellationToken::new(),
            journal_closed: Arc::new(watch::Sender::new(None)),
            threads: Arc::default(),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.journal.term()
    }

    /// Its workers.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Registers a worker, for jobs that wait for its modality.
    ///
    /// # Errors
    /// If this coordinator is shutting down, or the worker's id is taken.
    pub fn register(&self, worker: WorkerId, modality: ModalityName) -> Result<Registration, RegisterWorkerError> {
        if self.is_stopping() {
            return Err(RegisterWorkerError::Stopping);
        }
        Ok(self.pool.register(worker, modality)?)
    }

    /// Whether it is shutting down. Then it accepts neither jobs nor workers.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// The view of a job.
    ///
    /// # Errors
    /// There is no such job.
    pub fn job(&self, job: &JobId) -> Result<JobView, UnknownJob> {
        self.with_job(job, |entry| entry.view(job))
    }

    /// A job's specification, as JSON with all defaults.
    ///
    /// # Errors
    /// There is no such job.
    pub fn specification(&self, job: &JobId) -> Result<Arc<str>, UnknownJob> {
        self.with_job(job, |entry| Arc::clone(&entry.submitted.specification))
    }

    /// The views of all jobs, in order of submission.
    #[must_use]
    pub fn list(&self) -> Vec<JobView> {
        let jobs = self.jobs();
        let mut views: Vec<JobView> =
            jobs.iter().filter_map(|(job, entry)| entry.job().map(|entry| entry.view(job))).collect();
        drop(jobs);
        views.sort_by_key(|view| view.order);
        views
    }

    /// Reads a job's events with numbers above `after`, then future events.
    ///
    /// # Errors
    /// There is no such job.
    pub fn watch(&self, job: &JobId, after: u64) -> Result<EventWatcher, UnknownJob> {
        self.with_job(job, |entry| entry.events.watch(after))
    }

    /// Asks a job to stop at the next turn boundary, with a checkpoint. With `now`, the job does not wait for missing
    /// workers. A finished job does not change. When this returns, the request is durable.
    ///
    /// # Errors
    /// If there is no such job, or the journal cannot store the request.
    pub async fn stop(&self, job: &JobId, now: bool) -> Result<JobView, StopError> {
        if !self.job(job)?.status.state.is_final() {
            self.journal.request_stop(job).await?;
        }
        self.tell(job, JobInput::Stop { now }).await?;
        Ok(self.job(job)?)
    }

    pub(super) async fn tell(&self, job: &JobId, mut input: JobInput) -> Result<(), UnknownJob> {
        let mut inbox = self.with_job(job, |entry| entry.inbox.clone())?;
        while let Err(mpsc::error::SendError(unsent)) = inbox.send(input).await {
            let now = self.with_job(job, |entry| entry.inbox.clone())?;
            if now.same_channel(&inbox) {
                // The job is already over.
                break;
            }
            // The job was recovering, and has started.
            (inbox, input) = (now, unsent);
        }
        Ok(())
    }

    /// Waits until the journal is closed for writes, and returns the reason. Every job's task is aborted by then.
    /// Without a durable journal, this never returns.
    pub async fn journal_closed(&self) -> JournalError {
        // The sender lives as long as this coordinator.
        let error =
            self.journal_closed.subscribe().wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Why the journal is closed for writes, if it is.
    #[must_use]
    pub fn journal_error(&self) -> Option<JournalError> {
        self.journal_closed.borrow().clone()
    }

    pub(super) async fn watch_over_journal(self) {
        let Some(error) = self.journal.closed().await else { return };
        tracing::error!(%error, "the journal is closed; the coordinator stops");
        self.stopping.cancel();
        self.abort_all();
        self.journal_closed.send_replace(Some(error));
    }

    pub(super) fn with_job<T>(&self, job: &JobId, read: impl FnOnce(&RegisteredJob) -> T) -> Result<T, UnknownJob> {
        let jobs = self.jobs();
        jobs.get(job).and_then(Entry::job).map(read).ok_or_else(|| UnknownJob { job: job.clone() })
    }

    /// Waits for a job's task and cleans up after it.
    pub(super) async fn supervise(self, job: JobId, task: tokio::task::JoinHandle<()>) {
        let ended = task.await;
        self.task_ended(job, ended).await;
    }

    /// Cleans up after a job's task.
    pub(super) async fn task_ended(&self, job: JobId, ended: Result<(), tokio::task::JoinError>) {
        let ended = match ended {
            Ok(()) => "the job's task ended without a reason; this is a bug in the coordinator, see its log",
            Err(error) if error.is_panic() => "the job's task panicked; this is a bug in the coordinator, see its log",
            Err(_) => "the coordinator shut down before the job reached a turn boundary",
        };
        let events = self.jobs().get_mut(&job).and_then(Entry::job_mut).map(|entry| {
            let suspended = self.journal.is_durable() && self.is_stopping() && !entry.status.borrow().state.is_final();
            if suspended {
                entry.events.suspend();
            } else {
                entry.ended = Some(ended);
            }
            let view = entry.view(&job);
            let JobStatus { state, reason, .. } = &view.status;
            tracing::info!(%job, ?state, reason, suspended, "the task of a job has ended");
            self.pool.remove_job(&job, &format!("job `{job}` is over"));
            if !suspended && let Err(error) = entry.events.close(|| view.finished()) {
                tracing::error!(%job, %error, "the last event of the job cannot be appended and is lost");
            }
            entry.events.clone()
        });
        if let Some(events) = events {
            events.wait_until_persisted().await;
            let is_over = events.has_published_end();
            if let Some(entry) = self.jobs().get_mut(&job).and_then(Entry::job_mut) {
                entry.is_persisted = true;
                entry.over = is_over.then(clock::milliseconds);
            }
            if is_over {
                self.prune();
            }
        }
        self.running.send_modify(|running| *running -= 1);
    }

    pub(super) fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lock order: after `jobs`.
    pub(super) fn requests(&self) -> MutexGuard<'_, BTreeMap<RequestId, JobId>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
