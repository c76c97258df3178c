//! The jobs of one coordinator, in memory: submit, look, watch, stop. The services are thin layers over this, and a program that
//! holds a coordinator in its own process uses it as it is.

mod submission;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antiphon_core::event::{FinalState, Finished};
use antiphon_core::ids::{JobId, JobName, Term};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use submission::{Submission, SubmitError};

use crate::config::Config;
use crate::events::{EventLog, EventWatcher};
use crate::head_threads::HeadThreads;
use crate::pool::Pool;
use crate::seam::{JobConfig, JobHandle, JobInput, JobState, JobStatus};

/// Whoever has the head for longer than this is worth a remark.
const LONG: Duration = Duration::from_secs(10);

/// Starts the task of a job.
pub type SpawnJob = dyn Fn(JobConfig) -> JobHandle + Send + Sync;

/// There is no such job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no job `{job}` here")]
pub struct UnknownJob {
    /// The id asked for.
    pub job: JobId,
}

/// A job as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub job: JobId,
    /// Its name.
    pub name: JobName,
    /// The reign under which it runs.
    pub term: Term,
    /// How it is doing.
    pub status: JobStatus,
    /// The number of its last event.
    pub last_event: u64,
}

/// The jobs and workers of this process. Clones share them.
#[derive(Clone)]
pub struct Coordinator {
    config: Arc<Config>,
    spawn: Arc<SpawnJob>,
    pool: Pool,
    jobs: Arc<Mutex<BTreeMap<JobId, Entry>>>,
    /// Jobs whose task has not ended.
    running: Arc<watch::Sender<usize>>,
    stopping: CancellationToken,
    /// Started with the first job.
    threads: Arc<Mutex<Option<HeadThreads>>>,
}

/// A job's place in the registry; empty while its submission is being checked.
enum Entry {
    Submitting,
    Held(Held),
}

struct Held {
    name: JobName,
    term: Term,
    inbox: mpsc::Sender<JobInput>,
    status: watch::Receiver<JobStatus>,
    events: EventLog,
    abort: tokio::task::AbortHandle,
    /// Set when the job's task has ended: the reason, should its last status not be final.
    ended: Option<&'static str>,
}

impl Coordinator {
    /// A coordinator without jobs or workers, whose jobs are run by [`crate::job::spawn`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_jobs(config, Arc::new(crate::job::spawn))
    }

    /// As [`Coordinator::new`], with jobs of the caller's making.
    #[must_use]
    pub fn with_jobs(config: Config, spawn: Arc<SpawnJob>) -> Self {
        Self {
            config: Arc::new(config),
            spawn,
            pool: Pool::default(),
            jobs: Arc::default(),
            running: Arc::new(watch::Sender::new(0)),
            stopping: CancellationToken::new(),
            threads: Arc::default(),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its workers.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether it is shutting down, and takes neither jobs nor workers.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// How a job is doing.
    ///
    /// # Errors
    /// There is no such job.
    pub fn job(&self, job: &JobId) -> Result<JobView, UnknownJob> {
        self.with_job(job, |held| held.view(job))
    }

    /// How every job is doing, in order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<JobView> {
        let jobs = self.jobs();
        jobs.iter().filter_map(|(job, entry)| entry.held().map(|held| held.view(job))).collect()
    }

    /// Reads a job's events after number `after`, then those to come.
    ///
    /// # Errors
    /// There is no such job.
    pub fn watch(&self, job: &JobId, after: u64) -> Result<EventWatcher, UnknownJob> {
        self.with_job(job, |held| held.events.watch(after))
    }

    /// Asks a job to stop at the next turn boundary, with a checkpoint. Asking a job that is over changes nothing.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn stop(&self, job: &JobId) -> Result<JobView, UnknownJob> {
        let inbox = self.with_job(job, |held| held.inbox.clone())?;
        // The error is that the job is over already.
        let _over_already = inbox.send(JobInput::Stop).await;
        self.job(job)
    }

    /// Takes no more jobs and workers, stops every job at a turn boundary, and ends those that are not there in time.
    pub async fn stop_all(&self) {
        self.stopping.cancel();
        let jobs: Vec<JobId> = self.jobs().keys().cloned().collect();
        let stop = async {
            for job in &jobs {
                let _unknown = self.stop(job).await;
            }
            self.all_over().await;
        };
        if tokio::time::timeout(self.config.stop_within, stop).await.is_err() {
            tracing::warn!(seconds = self.config.stop_within.as_secs(), "jobs did not stop in time; ending them");
            self.jobs().values().filter_map(Entry::held).for_each(|held| held.abort.abort());
            self.all_over().await;
        }
    }

    async fn all_over(&self) {
        // The sender lives as long as this coordinator does.
        let mut running = self.running.subscribe();
        let _count = running.wait_for(|running| *running == 0).await;
    }

    fn with_job<T>(&self, job: &JobId, read: impl FnOnce(&Held) -> T) -> Result<T, UnknownJob> {
        let jobs = self.jobs();
        jobs.get(job).and_then(Entry::held).map(read).ok_or_else(|| UnknownJob { job: job.clone() })
    }

    /// Waits for a job's task and clears up after it.
    async fn supervise(self, job: JobId, task: tokio::task::JoinHandle<()>) {
        let ended = match task.await {
            Ok(()) => "the job's task ended without a word: this is a bug in the coordinator, see its log",
            Err(error) if error.is_panic() => "the job's task panicked: this is a bug in the coordinator, see its log",
            Err(_) => "the coordinator shut down before the job reached a turn boundary",
        };
        if let Some(Entry::Held(held)) = self.jobs().get_mut(&job) {
            held.ended = Some(ended);
            let view = held.view(&job);
            tracing::info!(%job, state = ?view.status.state, reason = %view.status.reason, "job is over");
            self.pool.remove_job(&job, &format!("job `{job}` is over"));
            if let Err(error) = held.events.close(|| view.finished()) {
                tracing::error!(%job, %error, "its last event is lost");
            }
        }
        self.running.send_modify(|running| *running -= 1);
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn held(&self) -> Option<&Held> {
        match self {
            Self::Submitting => None,
            Self::Held(held) => Some(held),
        }
    }
}

impl Held {
    fn view(&self, job: &JobId) -> JobView {
        let mut status = self.status.borrow().clone();
        if let Some(reason) = self.ended.filter(|_| !status.state.is_final()) {
            status.state = JobState::Failed;
            status.reason = reason.to_owned();
            status.since = None;
        }
        if let Some(held) = status.since.map(|since| since.elapsed()).filter(|held| *held >= LONG) {
            status.reason = format!("{}, for {} s now", status.reason, held.as_secs());
        }
        JobView { job: job.clone(), name: self.name.clone(), term: self.term, status, last_event: self.events.last() }
    }
}

impl JobView {
    /// What is said last of a job whose task could not say it itself.
    fn finished(&self) -> Finished {
        let state = match self.status.state {
            JobState::Succeeded => FinalState::Succeeded,
            JobState::Stopped => FinalState::Stopped,
            JobState::Failed | JobState::Waiting | JobState::Running => FinalState::Failed,
        };
        Finished {
            job: self.job.clone(),
            state,
            reason: (state == FinalState::Failed).then(|| self.status.reason.clone()),
            turn: self.status.turn,
            checkpoint: self.status.checkpoint.clone(),
            digest: None,
            best: None,
            evaluation: None,
        }
    }
}
