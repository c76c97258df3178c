//! What a coordinator finds when it starts: jobs that are over are listed, the others go on from their newest checkpoints.
//!
//! Each of them is looked for on a task of its own, beside serving: until that is done the job is there, waits, and says for what.
//! It keeps its place in the order in which the pool gives workers to jobs, and begins as soon as it is found. Until then the pool
//! gives no workers to the jobs behind it; if its store does not answer within [`PROMPT`], it gives them workers first.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use antiphon_core::event::{BestCheckpoint, FinalState, Finished, JobEvent};
use antiphon_core::ids::{JobId, Turn};
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::{StorageError, StoreOptions};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::coordinator::{Coordinator, Entry, Held, Submitted};
use super::submission::SubmitError;
use crate::config::{Config, Keep};
use crate::events::EventLog;
use crate::job::contract::{INBOX, JobConfig, JobInput, JobStatus, STOPPED};
use crate::job::resume::{self, ResumeError, Resumed};
use crate::job::specification::Specification;
use crate::journal::{EndRecord, JobRecord, Journal, JournalError, Recorded};

/// Jobs whose stores are asked at the same time.
const AT_ONCE: usize = 16;
/// How long the jobs that were submitted after it wait for one whose store does not answer.
const PROMPT: Duration = Duration::from_secs(2);
/// How long a store may take to tell of a job that ends before it could begin again.
const LAST: Duration = Duration::from_secs(15);
/// How long a store may take to answer before it is asked anew.
const TRY: Duration = Duration::from_secs(30);
/// Before a store is asked again for a job's checkpoints.
const AGAIN: Duration = Duration::from_secs(10);

/// What became of a job that was looked for.
enum Looked {
    /// Its own task has begun.
    Begun,
    /// It will not: it is over, or this coordinator ends before.
    Over,
}

/// A job that is being looked for.
struct Lost {
    record: JobRecord,
    /// Somebody asked it to stop.
    stop: bool,
    inbox: mpsc::Receiver<JobInput>,
    status: watch::Sender<JobStatus>,
    events: EventLog,
}

impl Coordinator {
    /// A coordinator that keeps what `config` says: with [`Keep::Jobs`] it takes over the state's folder from whoever had it
    /// before, knows all jobs that were ever submitted there, and goes on with those that are not over.
    ///
    /// # Errors
    /// The journal cannot be opened or read, or yet another coordinator has taken over meanwhile.
    pub async fn open(config: Config) -> Result<Self, JournalError> {
        if config.keep == Keep::Nothing {
            return Ok(Self::new(config));
        }
        let journal = Journal::open(&config.stores.open(&config.state)?).await?;
        let coordinator = Self::of(config, journal, Arc::new(crate::job::spawn));
        tokio::spawn(coordinator.clone().watch_over_journal());
        coordinator.recover().await?;
        Ok(coordinator)
    }

    /// Takes in all jobs of the journal: when this returns they are all there, and those that are not over are being looked for.
    ///
    /// # Errors
    /// The journal cannot be read. A job that cannot go on fails, and the others do not notice.
    pub(super) async fn recover(&self) -> Result<(), JournalError> {
        let jobs = self.journal.jobs().await?;
        let next = jobs.last().map_or(0, |job| job.record.order + 1);
        self.submissions.store(next, Ordering::Relaxed);
        let unfinished = jobs.iter().filter(|job| job.end.is_none()).count();
        tracing::info!(term = %self.term(), jobs = jobs.len(), unfinished, "the journal is open");
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        for Recorded { record, stop, end } in jobs {
            if let Some(request) = &record.request {
                self.requests().insert(request.clone(), record.job.clone());
            }
            match end {
                Some(end) => self.list_over(&record, end),
                None => self.look_for(record, stop, Arc::clone(&at_once)),
            }
        }
        self.prune();
        Ok(())
    }

    /// Holds a job, and begins to look for what it goes on from.
    fn look_for(&self, record: JobRecord, stop: bool, at_once: Arc<Semaphore>) {
        let (job, term, submitted) = (record.job.clone(), record.term_under(self.term()), Submitted::from(&record));
        let (sender, inbox) = mpsc::channel(INBOX);
        let (status, watched) = watch::channel(recovering("looking for its newest checkpoint"));
        let events = EventLog::of(&self.journal, &job);
        self.pool.hold_for(job.clone(), record.order);
        let lost = Lost { record, stop, inbox, status, events: events.clone() };
        // Before its task, which may put the job that has begun in this place.
        let mut jobs = self.jobs();
        let task = tokio::spawn(self.clone().find(lost, at_once));
        let abort = Some(task.abort_handle());
        let held = Held {
            submitted,
            term,
            inbox: sender,
            status: watched,
            events,
            abort,
            ended: None,
            over: None,
            is_left: false,
        };
        jobs.insert(job.clone(), Entry::Held(held));
        drop(jobs);
        self.running.send_modify(|running| *running += 1);
        tokio::spawn(self.clone().supervise_search(job, task));
    }

    async fn supervise_search(self, job: JobId, task: JoinHandle<Looked>) {
        match task.await {
            Ok(Looked::Begun) => self.running.send_modify(|running| *running -= 1),
            Ok(Looked::Over) => self.is_over(job, Ok(())).await,
            Err(error) => self.is_over(job, Err(error)).await,
        }
    }

    /// Finds what a job goes on from and begins with it, unless it is told not to meanwhile.
    async fn find(self, mut lost: Lost, at_once: Arc<Semaphore>) -> Looked {
        let found = {
            let Lost { record, stop, status, events, inbox } = &mut lost;
            tokio::select! {
                biased;
                asked = told_to_end(inbox, *stop) => Err(asked),
                found = self.find_checkpoint(record, status, events, &at_once) => Ok(found),
            }
        };
        if !matches!(found, Ok(Ok(_))) {
            self.pool.limit_hold(&lost.record.job, Duration::ZERO);
        }
        match found {
            Ok(Ok(config)) => self.go_on(config, lost).await,
            Ok(Err(reason)) => {
                tracing::error!(job = %lost.record.job, reason, "the job cannot go on");
                lost.ends(FinalState::Failed, Some(reason), None)
            }
            Err(JobInput::Stop { .. }) => match self.newest_of(&lost, &at_once).await {
                Ok(newest) => lost.ends(FinalState::Stopped, None, newest),
                Err(reason) => {
                    let reason = format!("{STOPPED}; which checkpoint is its newest is not known: {reason}");
                    lost.ends(FinalState::Stopped, Some(reason), None)
                }
            },
            // The next coordinator looks for it.
            Err(_) => Looked::Over,
        }
    }

    /// The newest checkpoint of a job that is to end before it could begin again, its own or the one that it began from, and the
    /// best. The error says why it is not known: for a store that is away a job that is asked to stop does not wait as long as others.
    async fn newest_of(
        &self,
        lost: &Lost,
        at_once: &Semaphore,
    ) -> Result<Option<(Checkpoint, Option<BestCheckpoint>)>, String> {
        let Lost { record, status, .. } = lost;
        let spec = Specification::from_json(&record.specification).map_err(|errors| errors.to_string())?;
        let folder = self.job_folder(&record.job, &spec).map_err(|error| error.to_string())?;
        let search = self.search(record, CheckpointStore::new(&folder), status);
        let _one_of_them = at_once.acquire().await;
        let looked = timeout(LAST, search.look()).await;
        let newest = looked.map_err(|_| search.silence())?.map_err(Setback::reason)?;
        Ok(newest.map(|newest| {
            let own = search.is_own(newest.manifest().turn, &newest.url());
            let best = resume::best(newest.manifest()).filter(|_| own);
            let best = best.map(|best| resume::best_checkpoint(&search.store, best));
            (newest, best)
        }))
    }

    /// The job as it was submitted, from its own newest checkpoint, or else from the one that it began from.
    async fn find_checkpoint(
        &self,
        record: &JobRecord,
        status: &watch::Sender<JobStatus>,
        events: &EventLog,
        at_once: &Semaphore,
    ) -> Result<JobConfig, String> {
        let spec = Specification::from_json(&record.specification).map_err(|errors| errors.to_string())?;
        let (term, log) = (record.term_under(self.term()), events.clone());
        let mut config = loop {
            match self.job_config(&record.job, spec.clone(), term, log.clone()) {
                Ok(config) => break config,
                // Credentials that this coordinator was not given, or threads that it does not get, end no job.
                Err(error @ (SubmitError::Storage(StorageError::Settings { .. }) | SubmitError::Threads(_))) => {
                    self.pool.limit_hold(&record.job, Duration::ZERO);
                    tracing::warn!(job = %record.job, %error, "a job cannot go on yet; trying again");
                    status.send_replace(recovering(&error.to_string()));
                    sleep(AGAIN).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        };
        let search = self.search(record, config.store.clone(), status);
        let mut found = pin!(search.patiently(&spec, events));
        let prompt = {
            let _one_of_them = at_once.acquire().await;
            self.pool.limit_hold(&record.job, PROMPT);
            timeout(PROMPT, &mut found).await
        };
        let found = match prompt {
            Ok(found) => found?,
            Err(_) => {
                self.pool.limit_hold(&record.job, Duration::ZERO);
                tracing::warn!(job = %record.job, "its newest checkpoint is not loaded yet; others go on meanwhile");
                found.await?
            }
        };
        if let Some(newest) = found.as_ref().filter(|found| search.is_own(found.turn(), found.url())) {
            // Somebody may have gone on with its folder by other means.
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
        let patience = self.retry(&record.job).at_most(TRY).on_retry(move |retry| {
            tracing::warn!(%job, "{retry}");
            told.send_modify(|status| status.reason = recovering(&retry.reason).reason);
        });
        let store = store.with_retry(patience.clone());
        let search = Search {
            journal: &self.journal,
            record,
            store,
            stores: self.config.stores,
            patience,
            begun: Instant::now(),
            status,
        };
        search.tell(&format!("looking for its newest checkpoint in `{}`", search.store.url()));
        search
    }

    /// Begins with a job that was found.
    async fn go_on(&self, config: JobConfig, mut lost: Lost) -> Looked {
        let job = config.id.clone();
        let gone = format!("the coordinator of term {} is gone", self.term().0.saturating_sub(1));
        if let Err(error) = config.events.append(&recovered(&config, gone)) {
            tracing::error!(%job, %error, "an event is lost");
        }
        // The error is that another one has taken over already; it goes on with the job.
        let Ok(_) = self.start(config, Submitted::from(&lost.record)) else { return Looked::Over };
        // Whoever asked it to stop until now asked in vain otherwise.
        lost.inbox.close();
        let mut stop = None;
        while let Some(input) = lost.inbox.recv().await {
            match input {
                JobInput::Stop { now } => stop = Some(stop.unwrap_or(false) || now),
                other => drop(self.tell(&job, other).await),
            }
        }
        if let Some(now) = stop {
            // The error is that it is over already.
            let _over = self.tell(&job, JobInput::Stop { now }).await;
        }
        Looked::Begun
    }

    /// Holds a job that was over before this coordinator began.
    fn list_over(&self, record: &JobRecord, end: EndRecord) {
        let finished = end.finished;
        let otherwise = if finished.state == FinalState::Stopped { STOPPED.to_owned() } else { String::new() };
        let status = JobStatus {
            state: finished.state.into(),
            turn: finished.turn,
            turns: finished.turns,
            checkpoint: finished.checkpoint,
            ..JobStatus::waiting(finished.reason.unwrap_or(otherwise))
        };
        let held = Held {
            submitted: record.into(),
            term: record.term_under(end.reign),
            // Nobody reads it.
            inbox: mpsc::channel(1).0,
            status: watch::channel(status).1,
            events: EventLog::finished(&self.journal, &record.job, end.last_event),
            abort: None,
            ended: None,
            over: Some(end.ended),
            is_left: true,
        };
        self.jobs().insert(record.job.clone(), Entry::Held(held));
    }
}

/// The search for the checkpoint that a job goes on from.
struct Search<'a> {
    journal: &'a Journal,
    record: &'a JobRecord,
    store: CheckpointStore,
    stores: StoreOptions,
    patience: RetryPolicy,
    begun: Instant,
    status: &'a watch::Sender<JobStatus>,
}

/// Why a job does not go on.
enum Setback {
    /// Not yet: it is looked for again.
    Waits(String),
    /// Not at all.
    Ends(String),
}

impl Setback {
    fn reason(self) -> String {
        let (Self::Waits(reason) | Self::Ends(reason)) = self;
        reason
    }
}

impl From<CheckpointError> for Setback {
    /// A store that fails, or refuses these credentials, ends no job that it holds.
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Request { .. } => Self::Waits(error.to_string()),
            _ => Self::Ends(error.to_string()),
        }
    }
}

impl From<ResumeError> for Setback {
    fn from(error: ResumeError) -> Self {
        match error {
            ResumeError::Read(error) => error.into(),
            ResumeError::Unfit { .. } => Self::Ends(error.to_string()),
        }
    }
}

impl Search<'_> {
    fn tell(&self, what: &str) {
        self.status.send_replace(JobStatus { since: Some(self.begun), ..recovering(what) });
    }

    /// Its own newest checkpoint, or else the one that it began from, or none. It does not begin again from there where it has
    /// written one that is not to be found: its folder may not be mounted yet.
    async fn look(&self) -> Result<Option<Checkpoint>, Setback> {
        let job = &self.record.job;
        if let Some(newest) = self.store.newest().await? {
            return Ok(Some(newest));
        }
        let written = self.journal.newest_checkpoint(job).await;
        if let Some(turn) = written.map_err(|error| Setback::Waits(error.to_string()))? {
            let reason =
                format!("`{}` holds no checkpoint, but one of turn {turn} was written there", self.store.url());
            return Err(Setback::Waits(format!("{reason}; is it the right place, and is it mounted?")));
        }
        match &self.record.resume {
            Some(url) => Ok(Some(Checkpoint::open_with(url, &self.stores, &self.patience).await?)),
            None => Ok(None),
        }
    }

    /// The same with what it holds, for a job of this specification.
    async fn load(&self, spec: &Specification) -> Result<Option<Resumed>, Setback> {
        let looked = timeout(TRY, self.look()).await;
        let Some(checkpoint) = looked.map_err(|_| Setback::Waits(self.silence()))?? else { return Ok(None) };
        self.tell(&format!("loading `{}`", checkpoint.url()));
        Ok(Some(Resumed::load(&checkpoint, spec, &self.store).await?))
    }

    fn silence(&self) -> String {
        format!("there is no answer of `{}`", self.store.url())
    }

    /// As [`Self::load`], again and again, for as long as it may help.
    async fn patiently(&self, spec: &Specification, events: &EventLog) -> Result<Option<Resumed>, String> {
        let job = &self.record.job;
        let mut told: Option<Duration> = None;
        loop {
            match self.load(spec).await {
                Ok(found) => return Ok(found),
                Err(Setback::Ends(reason)) => return Err(reason),
                Err(Setback::Waits(reason)) => self.tell(&reason),
            }
            let reason = self.status.borrow().reason.clone();
            tracing::warn!(%job, reason, "a job cannot go on yet; trying again");
            let waited = self.begun.elapsed();
            // Events are kept: a store that is away for a day is not to leave thousands. The status always has the last reason.
            if told.is_none_or(|when| waited >= when * 2) {
                told = Some(waited);
                let seconds = waited.as_secs_f64();
                if let Err(error) = events.append(&JobEvent::Waiting { job: job.clone(), reason, seconds }) {
                    tracing::error!(%job, %error, "an event is lost");
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether this is one of the job's own.
    fn is_own(&self, turn: Turn, url: &str) -> bool {
        self.store.checkpoint_url(turn) == url
    }
}

impl Lost {
    /// It is over before it could begin again.
    fn ends(
        self,
        state: FinalState,
        reason: Option<String>,
        newest: Option<(Checkpoint, Option<BestCheckpoint>)>,
    ) -> Looked {
        let (newest, best) = newest.unzip();
        let turn = newest.as_ref().map_or(Turn(0), |newest| newest.manifest().turn);
        let checkpoint = newest.as_ref().map(Checkpoint::url);
        let finished = Finished {
            turn,
            checkpoint: checkpoint.clone(),
            digest: newest.map(|newest| newest.manifest().digest()),
            best: best.flatten(),
            ..Finished::new(self.record.job.clone(), state, reason.clone())
        };
        if let Err(error) = self.events.append(&JobEvent::Finished(finished)) {
            tracing::error!(job = %self.record.job, %error, "its last event is lost");
        }
        let reason = reason.unwrap_or_else(|| STOPPED.to_owned());
        self.status.send_replace(JobStatus { state: state.into(), turn, checkpoint, ..JobStatus::waiting(reason) });
        Looked::Over
    }
}

/// Waits until somebody has the job end, one way or the other; not at all where somebody did before.
async fn told_to_end(inbox: &mut mpsc::Receiver<JobInput>, before: bool) -> JobInput {
    if before {
        return JobInput::Stop { now: false };
    }
    loop {
        match inbox.recv().await {
            Some(asked @ (JobInput::Stop { .. } | JobInput::Suspend)) => return asked,
            Some(_) => {}
            // Whoever holds the job holds the other end.
            None => std::future::pending().await,
        }
    }
}

fn recovering(what: &str) -> JobStatus {
    JobStatus::waiting(format!("recovering: {what}"))
}

fn recovered(config: &JobConfig, reason: String) -> JobEvent {
    let turn = config.resume.as_ref().map_or(Turn(0), |resumed| resumed.turn());
    let checkpoint = config.resume.as_ref().map(|resumed| resumed.url().to_owned());
    JobEvent::Recovered { job: config.id.clone(), term: config.term, turn, checkpoint, reason }
}
