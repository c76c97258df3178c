//! The jobs of one coordinator: submit, look, watch, stop. The services are thin layers over this, and a program that
//! holds a coordinator in its own process uses it as it is.
//!
//! What is here is in memory; the journal has what the next coordinator needs to go on ([`Coordinator::open`]). When another one
//! has taken over, every job's task is aborted at once, and [`Coordinator::fallen`] says so.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antiphon_core::event::{FinalState, Finished};
use antiphon_core::ids::{JobId, JobName, RequestId, Term};
use antiphon_store::storage::Store;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Config;
use crate::events::{EventLog, EventWatcher};
use crate::head_threads::HeadThreads;
use crate::job::contract::{JobConfig, JobHandle, JobInput, JobState, JobStatus};
use crate::journal::{JobRecord, Journal, JournalError};
use crate::workers::pool::Pool;

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

/// Why a job was not asked to stop.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// There is no such job.
    #[error(transparent)]
    Unknown(#[from] UnknownJob),
    /// It cannot be written down that it was.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A job as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub job: JobId,
    /// Its name.
    pub name: JobName,
    /// Its place in the order of submission.
    pub order: u64,
    /// Seconds since 1970 at its submission, by the coordinator's clock.
    pub submitted: u64,
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
    pub(super) config: Arc<Config>,
    pub(super) journal: Journal,
    pub(super) spawn: Arc<SpawnJob>,
    pub(super) pool: Pool,
    pub(super) jobs: Arc<Mutex<BTreeMap<JobId, Entry>>>,
    /// The jobs that were made of submissions with a request id.
    pub(super) requests: Arc<Mutex<BTreeMap<RequestId, JobId>>>,
    /// The place of the next submission in their order.
    pub(super) submissions: Arc<AtomicU64>,
    /// Jobs whose task has not ended.
    pub(super) running: Arc<watch::Sender<usize>>,
    pub(super) stopping: CancellationToken,
    /// Set when the journal takes nothing any more.
    pub(super) fallen: Arc<watch::Sender<Option<JournalError>>>,
    /// Started with the first job.
    pub(super) threads: Arc<Mutex<Option<HeadThreads>>>,
}

/// A job's place in the registry; empty while its submission is being checked, or what is known of it is being removed.
pub(super) enum Entry {
    Submitting,
    Removing,
    Held(Held),
}

pub(super) struct Held {
    pub(super) submitted: Submitted,
    pub(super) term: Term,
    pub(super) inbox: mpsc::Sender<JobInput>,
    pub(super) status: watch::Receiver<JobStatus>,
    pub(super) events: EventLog,
    /// None where the job was over before this coordinator began.
    pub(super) abort: Option<tokio::task::AbortHandle>,
    /// Set when the job's task has ended: the reason, should its last status not be final.
    pub(super) ended: Option<&'static str>,
    /// When the job was over, in milliseconds since 1970; set once that is kept.
    pub(super) over: Option<u64>,
    /// Its task has ended, and its last events are written.
    pub(super) is_left: bool,
}

/// What a job was submitted as.
#[derive(Debug, Clone)]
pub(super) struct Submitted {
    pub(super) name: JobName,
    /// Its place in the order of submission.
    pub(super) order: u64,
    /// Seconds since 1970.
    pub(super) at: u64,
    /// As [`JobSpec::to_json`](antiphon_core::spec::JobSpec::to_json) writes it.
    pub(super) specification: Arc<str>,
}

impl Coordinator {
    /// A coordinator without jobs or workers, whose jobs are run by [`crate::job::spawn`] and end with it.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_jobs(config, Arc::new(crate::job::spawn))
    }

    /// As [`Coordinator::new`], with jobs of the caller's making.
    #[must_use]
    pub fn with_jobs(config: Config, spawn: Arc<SpawnJob>) -> Self {
        Self::of(config, Journal::passing(), spawn)
    }

    pub(super) fn of(config: Config, journal: Journal, spawn: Arc<SpawnJob>) -> Self {
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
            fallen: Arc::new(watch::Sender::new(None)),
            threads: Arc::default(),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its reign.
    #[must_use]
    pub fn term(&self) -> Term {
        self.journal.term()
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

    /// A job's specification, in JSON and with every default.
    ///
    /// # Errors
    /// There is no such job.
    pub fn specification(&self, job: &JobId) -> Result<Arc<str>, UnknownJob> {
        self.with_job(job, |held| Arc::clone(&held.submitted.specification))
    }

    /// How every job is doing, in the order of their submission.
    #[must_use]
    pub fn list(&self) -> Vec<JobView> {
        let jobs = self.jobs();
        let mut views: Vec<JobView> =
            jobs.iter().filter_map(|(job, entry)| entry.held().map(|held| held.view(job))).collect();
        drop(jobs);
        views.sort_by_key(|view| view.order);
        views
    }

    /// Reads a job's events after number `after`, then those to come.
    ///
    /// # Errors
    /// There is no such job.
    pub fn watch(&self, job: &JobId, after: u64) -> Result<EventWatcher, UnknownJob> {
        self.with_job(job, |held| held.events.watch(after))
    }

    /// Asks a job to stop at the next turn boundary, with a checkpoint; `now`, without waiting for workers that are not there.
    /// Asking a job that is over changes nothing. When this returns, a coordinator that comes after knows of it too.
    ///
    /// # Errors
    /// There is no such job, or the journal does not take it.
    pub async fn stop(&self, job: &JobId, now: bool) -> Result<JobView, StopError> {
        if !self.job(job)?.status.state.is_final() {
            self.journal.ask_to_stop(job).await?;
        }
        self.tell(job, JobInput::Stop { now }).await?;
        Ok(self.job(job)?)
    }

    pub(super) async fn tell(&self, job: &JobId, mut input: JobInput) -> Result<(), UnknownJob> {
        let mut inbox = self.with_job(job, |held| held.inbox.clone())?;
        while let Err(mpsc::error::SendError(unread)) = inbox.send(input).await {
            let now = self.with_job(job, |held| held.inbox.clone())?;
            if now.same_channel(&inbox) {
                // It is over already.
                break;
            }
            // It was being looked for, and has begun.
            (inbox, input) = (now, unread);
        }
        Ok(())
    }

    /// Waits until the journal takes nothing any more, and says why. By then every job's task is aborted. A coordinator that
    /// keeps nothing waits for ever.
    pub async fn fallen(&self) -> JournalError {
        // The sender lives as long as this coordinator does.
        let error = self.fallen.subscribe().wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match error {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// As [`Coordinator::fallen`], so far.
    #[must_use]
    pub fn has_fallen(&self) -> Option<JournalError> {
        self.fallen.borrow().clone()
    }

    pub(super) async fn watch_over_journal(self) {
        let Some(error) = self.journal.fallen().await else { return };
        tracing::error!("{error}");
        self.stopping.cancel();
        self.abort_all();
        self.fallen.send_replace(Some(error));
    }

    pub(super) fn with_job<T>(&self, job: &JobId, read: impl FnOnce(&Held) -> T) -> Result<T, UnknownJob> {
        let jobs = self.jobs();
        jobs.get(job).and_then(Entry::held).map(read).ok_or_else(|| UnknownJob { job: job.clone() })
    }

    /// Waits for a job's task and clears up after it.
    pub(super) async fn supervise(self, job: JobId, task: tokio::task::JoinHandle<()>) {
        let ended = task.await;
        self.is_over(job, ended).await;
    }

    /// Clears up after a job's task.
    pub(super) async fn is_over(&self, job: JobId, ended: Result<(), tokio::task::JoinError>) {
        let ended = match ended {
            Ok(()) => "the job's task ended without a word: this is a bug in the coordinator, see its log",
            Err(error) if error.is_panic() => "the job's task panicked: this is a bug in the coordinator, see its log",
            Err(_) => "the coordinator shut down before the job reached a turn boundary",
        };
        let events = self.jobs().get_mut(&job).and_then(Entry::held_mut).map(|held| {
            let goes_on = self.journal.is_durable() && self.is_stopping() && !held.status.borrow().state.is_final();
            if goes_on {
                held.events.leave();
            } else {
                held.ended = Some(ended);
            }
            let view = held.view(&job);
            tracing::info!(%job, state = ?view.status.state, reason = %view.status.reason, goes_on, "job is over here");
            self.pool.remove_job(&job, &format!("job `{job}` is over"));
            if !goes_on && let Err(error) = held.events.close(|| view.finished()) {
                tracing::error!(%job, %error, "its last event is lost");
            }
            held.events.clone()
        });
        if let Some(events) = events {
            events.handed_over().await;
            let is_over = events.tells_of_the_end();
            if let Some(held) = self.jobs().get_mut(&job).and_then(Entry::held_mut) {
                held.is_left = true;
                held.over = is_over.then(clock::milliseconds);
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

    /// To be held after `jobs`, where both are.
    pub(super) fn requests(&self) -> MutexGuard<'_, BTreeMap<RequestId, JobId>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Submitted {
    /// `specification` is what the record holds too.
    pub(super) fn new(record: &JobRecord, specification: Arc<str>) -> Self {
        Self { name: record.name.clone(), order: record.order, at: record.submitted, specification }
    }
}

impl From<&JobRecord> for Submitted {
    fn from(record: &JobRecord) -> Self {
        Self::new(record, record.specification.as_str().into())
    }
}

impl Entry {
    pub(super) fn held(&self) -> Option<&Held> {
        match self {
            Self::Submitting | Self::Removing => None,
            Self::Held(held) => Some(held),
        }
    }

    pub(super) fn held_mut(&mut self) -> Option<&mut Held> {
        match self {
            Self::Submitting | Self::Removing => None,
            Self::Held(held) => Some(held),
        }
    }
}

impl Held {
    pub(super) fn view(&self, job: &JobId) -> JobView {
        let mut status = self.status.borrow().clone();
        if let Some(reason) = self.ended.filter(|_| !status.state.is_final()) {
            status.state = JobState::Failed;
            status.reason = reason.to_owned();
            status.since = None;
        }
        if status.state.is_final() && self.ended.is_none() && !self.events.tells_of_the_end() {
            status.state = JobState::Running;
            status.reason = "its end is being written down".to_owned();
        }
        if self.events.is_full() {
            status.reason = "the store takes no events; turns wait for it".to_owned();
            status.since = None;
        }
        if let Some(held) = status.since.map(|since| since.elapsed()).filter(|held| *held >= LONG) {
            status.reason = format!("{}, for {} s now", status.reason, held.as_secs());
        }
        let Submitted { name, order, at, .. } = &self.submitted;
        JobView {
            job: job.clone(),
            name: name.clone(),
            order: *order,
            submitted: *at,
            term: self.term,
            status,
            last_event: self.events.last(),
        }
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
        let reason = (state == FinalState::Failed).then(|| self.status.reason.clone());
        Finished {
            turn: self.status.turn,
            turns: self.status.turns,
            checkpoint: self.status.checkpoint.clone(),
            ..Finished::new(self.job.clone(), state, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::event::JobEvent;
    use antiphon_store::storage::Store;

    use super::*;

    #[tokio::test]
    async fn a_job_whose_events_the_journal_does_not_take_says_so() {
        let state = Store::open("memory://full/state").expect("memory opens");
        let journal = Journal::open(&state).await.expect("it opens");
        let job = JobId::try_from("j").expect("an id");
        let events = EventLog::of(&journal, &job);
        let held = Held {
            submitted: Submitted { name: "j".try_into().expect("a name"), order: 0, at: 0, specification: "{}".into() },
            term: Term(1),
            inbox: mpsc::channel(1).0,
            status: watch::channel(JobStatus::waiting("something else".to_owned())).1,
            events: events.clone(),
            abort: None,
            ended: None,
            over: None,
            is_left: false,
        };
        assert_eq!(held.view(&job).status.reason, "something else");
        // The task that hands them over has no turn meanwhile.
        while !events.is_full() {
            let waiting = JobEvent::Waiting { job: job.clone(), reason: "something".to_owned(), seconds: 0.0 };
            events.append(&waiting).expect("the log is open");
        }
        assert_eq!(held.view(&job).status.reason, "the store takes no events; turns wait for it");
        events.room().await;
        assert_eq!(held.view(&job).status.reason, "something else");
    }
}
