//! Recovery when a coordinator starts: it lists the finished jobs, and resumes the others from their newest
//! checkpoints.
//!
//! A separate task searches for each job's checkpoint while the coordinator serves. Meanwhile the job is visible,
//! waits, and reports what it waits for. It keeps its position in the order in which jobs get workers, and starts when
//! its checkpoint is found. Until then later jobs get no workers. If its store does not answer within [`PROMPT`], they
//! get workers first.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use antiphon_core::event::{BestCheckpoint, FinalState, Finished, JobEvent};
use antiphon_core::ids::{JobId, Turn};
use antiphon_store::checkpoints::{Checkpoint, CheckpointStore};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::coordinator::Coordinator;
use super::entry::{RegisteredJob, Submitted};
use super::search::{ATTEMPT, BACK_OFF, RecoveryError, Search, recovering};
use crate::config::{Config, Keep};
use crate::events::EventLog;
use crate::job::config::JobConfig;
use crate::job::contract::{INBOX, JobInput, JobStatus, STOPPED};
use crate::job::resume;
use crate::job::specification::Specification;
use crate::journal::{EndRecord, JobRecord, Journal, JournalError, Recorded};

/// The number of jobs that are searched for concurrently.
const AT_ONCE: usize = 16;
/// How long later jobs wait for a job whose store does not answer.
const PROMPT: Duration = Duration::from_secs(2);
/// The timeout of the search for a job that ends before it resumes.
const LAST_SEARCH: Duration = Duration::from_secs(15);

/// The result of a recovery.
enum Recovered {
    /// Its own task has started.
    Started,
    /// The job does not start, because it is over or this coordinator ends first.
    Ended,
}

/// A recovering job.
struct Recovering {
    record: JobRecord,
    /// Whether a user asked it to stop.
    stop: bool,
    inbox: mpsc::Receiver<JobInput>,
    status: watch::Sender<JobStatus>,
    events: EventLog,
}

/// The newest and the best checkpoint of a job that ends before it resumes.
struct Newest {
    checkpoint: Checkpoint,
    best: Option<BestCheckpoint>,
}

impl Coordinator {
    /// A coordinator with these settings. With [`Keep::Jobs`] it takes over the folder of the state from the previous
    /// coordinator, lists all jobs there, and resumes those that are not over.
    ///
    /// # Errors
    /// If the journal cannot be opened or read, or another coordinator has taken over in the meantime.
    pub async fn open(config: Config) -> Result<Self, JournalError> {
        if config.keep == Keep::Nothing {
            return Ok(Self::new(config));
        }
        let journal = Journal::open(&config.stores.open(&config.state)?).await?;
        let coordinator = Self::with_journal(config, journal, Arc::new(crate::job::spawn));
        tokio::spawn(coordinator.clone().watch_over_journal());
        coordinator.recover().await?;
        Ok(coordinator)
    }

    /// Registers all jobs of the journal. When this returns, all jobs are listed, and unfinished jobs are recovering.
    ///
    /// # Errors
    /// If the journal cannot be read. A job that cannot resume fails alone.
    async fn recover(&self) -> Result<(), JournalError> {
        let jobs = self.journal.jobs().await?;
        let next = jobs.last().map_or(0, |job| job.record.order + 1);
        self.submissions.store(next, Ordering::Relaxed);
        let unfinished = jobs.iter().filter(|job| job.end.is_none()).count();
        tracing::info!(term = %self.term(), jobs = jobs.len(), unfinished, "the coordinator has opened its journal");
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        for Recorded { record, stop, end } in jobs {
            if let Some(request) = &record.request {
                self.requests().insert(request.clone(), record.job.clone());
            }
            match end {
                Some(end) => self.list_finished(&record, end),
                None => self.start_recovery(record, stop, Arc::clone(&at_once)),
            }
        }
        self.prune();
        Ok(())
    }

    /// Registers a job, and starts to search for its checkpoint.
    fn start_recovery(&self, record: JobRecord, stop: bool, at_once: Arc<Semaphore>) {
        let (job, term, submitted) = (record.job.clone(), record.term_under(self.term()), Submitted::from(&record));
        let (sender, inbox) = mpsc::channel(INBOX);
        let (status, watched) = watch::channel(recovering("looking for its newest checkpoint"));
        let events = EventLog::open(&self.journal, &job);
        self.pool.hold_for(job.clone(), record.order);
        let search = Recovering { record, stop, inbox, status, events: events.clone() };
        // Registered before the task can replace it by the started job.
        let mut jobs = self.jobs();
        let task = tokio::spawn(self.clone().find(search, at_once));
        let abort = Some(task.abort_handle());
        jobs.insert(job.clone(), RegisteredJob::new(submitted, term, sender, watched, events, abort).into());
        drop(jobs);
        self.running.send_modify(|running| *running += 1);
        tokio::spawn(self.clone().supervise_recovery(job, task));
    }

    async fn supervise_recovery(self, job: JobId, task: JoinHandle<Recovered>) {
        match task.await {
            Ok(Recovered::Started) => self.running.send_modify(|running| *running -= 1),
            Ok(Recovered::Ended) => self.task_ended(job, Ok(())).await,
            Err(error) => self.task_ended(job, Err(error)).await,
        }
    }

    /// Finds a job's checkpoint and resumes the job, unless it is asked to end in the meantime.
    async fn find(self, mut job: Recovering, at_once: Arc<Semaphore>) -> Recovered {
        let found = {
            let Recovering { record, stop, status, events, inbox } = &mut job;
            tokio::select! {
                biased;
                asked = told_to_end(inbox, *stop) => Err(asked),
                found = self.find_checkpoint(record, status, events, &at_once) => Ok(found),
            }
        };
        if !matches!(found, Ok(Ok(_))) {
            self.pool.limit_hold(&job.record.job, Duration::ZERO);
        }
        match found {
            Ok(Ok(config)) => self.resume(config, job).await,
            Ok(Err(error)) => {
                tracing::error!(job = %job.record.job, %error, "a job cannot resume");
                job.end(FinalState::Failed, Some(error.to_string()), None)
            }
            Err(JobInput::Stop { .. }) => match self.newest_of(&job, &at_once).await {
                Ok(newest) => job.end(FinalState::Stopped, None, newest),
                Err(error) => {
                    let reason = format!("{STOPPED}; its newest checkpoint is not known: {error}");
                    job.end(FinalState::Stopped, Some(reason), None)
                }
            },
            // The next coordinator recovers it.
            Err(_) => Recovered::Ended,
        }
    }

    /// The newest checkpoint of a job that ends before it resumes: its own, or the one that it was submitted with. A
    /// job that is asked to stop does not wait as long for a store as other jobs.
    ///
    /// # Errors
    /// If the checkpoint cannot be determined.
    async fn newest_of(&self, job: &Recovering, at_once: &Semaphore) -> Result<Option<Newest>, RecoveryError> {
        let Recovering { record, status, .. } = job;
        let spec = Specification::from_json(&record.specification)?;
        let search = self.search(record, CheckpointStore::new(&self.job_folder(&record.job, &spec)?), status);
        let _one_of_them = at_once.acquire().await;
        let newest = timeout(LAST_SEARCH, search.newest()).await.map_err(|_| search.no_answer())??;
        Ok(newest.map(|checkpoint| {
            let own = search.is_own(checkpoint.manifest().turn, &checkpoint.url());
            let best = resume::best(checkpoint.manifest()).filter(|_| own);
            Newest { best: best.map(|best| resume::best_checkpoint(&search.store, best)), checkpoint }
        }))
    }

    /// The configuration of the job, with its own newest checkpoint, or otherwise the one that it was submitted with.
    async fn find_checkpoint(
        &self,
        record: &JobRecord,
        status: &watch::Sender<JobStatus>,
        events: &EventLog,
        at_once: &Semaphore,
    ) -> Result<JobConfig, RecoveryError> {
        let spec = Specification::from_json(&record.specification)?;
        let (term, log) = (record.term_under(self.term()), events.clone());
        let mut config = loop {
            let config = self.job_config(&record.job, spec.clone(), term, log.clone()).map_err(RecoveryError::from);
            match config {
                Err(error) if error.is_transient() => {
                    self.pool.limit_hold(&record.job, Duration::ZERO);
                    tracing::warn!(job = %record.job, %error, "a job cannot resume yet; the coordinator retries");
                    status.send_replace(recovering(&error.to_string()));
                    sleep(BACK_OFF).await;
                }
                config => break config?,
            }
        };
        let search = self.search(record, config.store.clone(), status);
        let mut found = pin!(search.until_loaded(&spec, events));
        let prompt = {
            let _one_of_them = at_once.acquire().await;
            self.pool.limit_hold(&record.job, PROMPT);
            timeout(PROMPT, &mut found).await
        };
        let found = match prompt {
            Ok(found) => found?,
            Err(_) => {
                self.pool.limit_hold(&record.job, Duration::ZERO);
                tracing::warn!(job = %record.job, "the checkpoint of a job is still loading; later jobs start first");
                found.await?
            }
        };
        if let Some(newest) = found.as_ref().filter(|found| search.is_own(found.turn(), found.url())) {
            // Another program may have written to its folder.
            config.term = config.term.max(newest.term().next());
        }
        config.resume = found.map(Box::new);
        Ok(config)
    }

    fn search<'a>(
        &'a self,
        record: &'a JobRecord,
        store: CheckpointStore,
        status: &'a watch::Sender<JobStatus>,
    ) -> Search<'a> {
        let (job, told) = (record.job.clone(), status.clone());
        let retry = self.retry(&record.job).at_most(ATTEMPT).on_retry(move |retry| {
            tracing::warn!(%job, %retry, "a request to the store failed; the coordinator retries it");
            told.send_modify(|status| status.reason = recovering(&retry.message).reason);
        });
        let (store, stores, started) = (store.with_retry(retry.clone()), self.config.stores, Instant::now());
        let search = Search { journal: &self.journal, record, store, stores, retry, started, status };
        search.tell(&format!("looking for its newest checkpoint in `{}`", search.store.url()));
        search
    }

    /// Starts the task of a job whose checkpoint was found.
    async fn resume(&self, config: JobConfig, mut recovering: Recovering) -> Recovered {
        let job = config.id.clone();
        let gone = format!("the coordinator of term {} has ended", self.term().0.saturating_sub(1));
        if let Err(error) = config.events.append(&recovered(&config, gone)) {
            tracing::error!(%job, %error, "an event of the job cannot be appended and is lost");
        }
        // The error means that another coordinator has taken over, which resumes the job.
        let Ok(_) = self.start(config, Submitted::from(&recovering.record)) else { return Recovered::Ended };
        // A request to stop that has arrived by now must reach the job's task.
        recovering.inbox.close();
        let mut stop = None;
        while let Some(input) = recovering.inbox.recv().await {
            match input {
                JobInput::Stop { now } => stop = Some(stop.unwrap_or(false) || now),
                other => drop(self.tell(&job, other).await),
            }
        }
        if let Some(now) = stop {
            // The error means that the job is already over.
            let _over = self.tell(&job, JobInput::Stop { now }).await;
        }
        Recovered::Started
    }

    /// Registers a job that was over before this coordinator started.
    fn list_finished(&self, record: &JobRecord, end: EndRecord) {
        let finished = end.finished;
        let otherwise = if finished.state == FinalState::Stopped { STOPPED.to_owned() } else { String::new() };
        let status = JobStatus {
            state: finished.state.into(),
            turn: finished.turn,
            turns: finished.turns,
            checkpoint: finished.checkpoint,
            ..JobStatus::waiting(finished.reason.unwrap_or(otherwise))
        };
        let events = EventLog::finished(&self.journal, &record.job, end.last_event);
        let (inbox, status) = (mpsc::channel(1).0, watch::channel(status).1);
        let job = RegisteredJob::new(record.into(), record.term_under(end.term), inbox, status, events, None);
        let job = RegisteredJob { over: Some(end.ended), is_persisted: true, ..job };
        self.jobs().insert(record.job.clone(), job.into());
    }
}

impl Recovering {
    /// Ends the job before it has resumed.
    fn end(self, state: FinalState, reason: Option<String>, newest: Option<Newest>) -> Recovered {
        let newest = newest.as_ref();
        let turn = newest.map_or(Turn(0), |newest| newest.checkpoint.manifest().turn);
        let checkpoint = newest.map(|newest| newest.checkpoint.url());
        let finished = Finished {
            turn,
            checkpoint: checkpoint.clone(),
            digest: newest.map(|newest| newest.checkpoint.manifest().digest()),
            best: newest.and_then(|newest| newest.best.clone()),
            ..Finished::new(self.record.job.clone(), state, reason.clone())
        };
        if let Err(error) = self.events.append(&JobEvent::Finished(finished)) {
            tracing::error!(job = %self.record.job, %error, "the last event of the job cannot be appended and is lost");
        }
        let reason = reason.unwrap_or_else(|| STOPPED.to_owned());
        self.status.send_replace(JobStatus { state: state.into(), turn, checkpoint, ..JobStatus::waiting(reason) });
        Recovered::Ended
    }
}

/// Waits until the job is asked to stop or suspend. Returns at once if it was asked before.
async fn told_to_end(inbox: &mut mpsc::Receiver<JobInput>, before: bool) -> JobInput {
    if before {
        return JobInput::Stop { now: false };
    }
    loop {
        match inbox.recv().await {
            Some(asked @ (JobInput::Stop { .. } | JobInput::Suspend)) => return asked,
            Some(_) => {}
            // The registry keeps the other end as long as it has the job.
            None => std::future::pending().await,
        }
    }
}

fn recovered(config: &JobConfig, reason: String) -> JobEvent {
    let turn = config.resume.as_ref().map_or(Turn(0), |resumed| resumed.turn());
    let checkpoint = config.resume.as_ref().map(|resumed| resumed.url().to_owned());
    JobEvent::Recovered { job: config.id.clone(), term: config.term, turn, checkpoint, reason }
}
