//! From a submission to a running job. A submission is checked completely before it is acknowledged.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use antiphon_core::digest::sha256;
use antiphon_core::event::JobEvent;
use antiphon_core::files;
use antiphon_core::head::SharedHead;
use antiphon_core::ids::{JobId, JobName, ModalityName, RequestId, Term};
use antiphon_core::spec::{self, JobSpec, SpecErrors};
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::{StorageError, Store};
use rayon::ThreadPoolBuildError;

use super::coordinator::Coordinator;
use super::entry::{Entry, RegisteredJob, Submitted};
use crate::clock;
use crate::events::EventLog;
use crate::head_threads::HeadThreads;
use crate::job::config::JobConfig;
use crate::job::contract;
use crate::job::resume::{ResumeError, Resumed};
use crate::job::specification::Specification;
use crate::journal::{Event, JobRecord, JournalError};
use crate::workers::pool::{Assignment, JobWorkers};

/// How long a submission waits for a failing store.
const SUBMIT: Duration = Duration::from_secs(20);

/// A request to run a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The job file: YAML or JSON.
    pub specification: String,
    /// The id of the job. None derives one from the job's name.
    pub job: Option<JobId>,
    /// The URL of a checkpoint to resume from, or of a job's folder for its newest checkpoint.
    pub resume: Option<String>,
    /// The client's id of the request. The same submission under the same id creates one job.
    pub request: Option<RequestId>,
}

/// Why a submission was rejected. A rejected submission leaves nothing behind.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The coordinator is shutting down.
    #[error("the coordinator is shutting down and accepts no jobs")]
    Stopping,
    /// The specification is invalid.
    #[error(transparent)]
    Specification(#[from] SpecErrors),
    /// The job's first event cannot be encoded.
    #[error("the job's first event cannot be written as JSON: {0}; this is a bug in the coordinator")]
    Json(#[from] serde_json::Error),
    /// The id is taken.
    #[error("there is a job `{job}` already; choose another id")]
    Duplicate {
        /// The id.
        job: JobId,
    },
    /// The submission was sent before, and is being checked.
    #[error("this submission was sent before, as job `{job}`, and is still being checked; retry it later")]
    Underway {
        /// The job's id.
        job: JobId,
    },
    /// Its head exceeds the memory limit.
    #[error(
        "head.width: a head of {classes} classes by {width}, with projector, optimizer and a message of each worker, \
         takes {needed} MiB, but the limit per job is {limit} MiB; start the coordinator (or the run) with \
         --head-memory {needed}, or reduce `head.width`, `schedule.batch` or `evaluation.chunk`"
    )]
    HeadTooLarge {
        /// C.
        classes: usize,
        /// s.
        width: u32,
        /// The memory that the head needs, in MiB.
        needed: u64,
        /// The limit per job, in MiB.
        limit: u64,
    },
    /// The system cannot start the head threads.
    #[error(
        "the threads that heads compute on cannot be started: {0}; start the coordinator with fewer --head-threads"
    )]
    Threads(#[from] ThreadPoolBuildError),
    /// The store cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The journal cannot store the job.
    #[error("the job was not accepted: {0}")]
    Journal(#[from] JournalError),
    /// The checkpoints cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint does not fit the job.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The job's folder holds a later checkpoint than the one to resume from.
    #[error(
        "`{folder}` already holds a checkpoint at turn {newest}, which is later than the start of this job; resume \
         from that checkpoint, or choose another id"
    )]
    Beyond {
        /// The folder of checkpoints.
        folder: String,
        /// The turn of the newest complete checkpoint.
        newest: u64,
    },
    /// The checkpoint belongs to a job with other modalities.
    #[error(
        "checkpoint `{checkpoint}` belongs to a job with modalities {theirs}, but this job has {ours}; resume from another checkpoint"
    )]
    OtherModalities {
        /// The checkpoint.
        checkpoint: String,
        /// The modalities of the checkpoint's job, as text.
        theirs: String,
        /// The modalities of the submitted job, as text.
        ours: String,
    },
}

impl Coordinator {
    /// Accepts a job. When this returns, the job is registered and, with a durable journal, persisted. A submission
    /// that was accepted before, under the same request id, returns the same job.
    ///
    /// # Errors
    /// The first error in the submission.
    pub async fn submit(&self, submission: Submission) -> Result<JobId, SubmitError> {
        if self.is_stopping() {
            return Err(SubmitError::Stopping);
        }
        let spec = spec::parse_any(&submission.specification, "the submitted job")?;
        self.check_head(&spec)?;
        let reservation = match self.reserve(&submission, &spec.name)? {
            Reserved::Accepted(job) => return Ok(job),
            Reserved::New(reservation) => reservation,
        };
        let request = submission.request;
        let config = self.prepare(&reservation.job, spec.into(), submission.resume.as_deref()).await?;
        if !self.journal.is_durable() {
            return self.accept(config, request).await;
        }
        // The client may disconnect from now on. A job that is written to the journal must be registered too.
        let coordinator = self.clone();
        let accepted = tokio::spawn(async move {
            let accepted = coordinator.accept(config, request).await;
            drop(reservation);
            accepted
        });
        accepted.await.unwrap_or(Err(SubmitError::Stopping))
    }

    /// Writes a job to the journal, and starts it.
    async fn accept(&self, config: JobConfig, request: Option<RequestId>) -> Result<JobId, SubmitError> {
        let record = JobRecord {
            job: config.id.clone(),
            name: config.spec.name.clone(),
            order: self.submissions.fetch_add(1, Ordering::Relaxed),
            submitted: clock::since_epoch().as_secs(),
            after: config.resume.as_ref().map(|resumed| resumed.term()),
            resume: config.resume.as_ref().map(|resumed| resumed.url().to_owned()),
            request,
            specification: config.spec.json().to_string(),
        };
        let event = JobEvent::Submitted {
            job: record.job.clone(),
            name: record.name.clone(),
            resumed_from: record.resume.clone(),
        };
        let json = serde_json::to_string(&event)?;
        let first = Event { number: config.events.last() + 1, json: json.into() };
        self.journal.add_job(&record, &first).await?;
        config.events.append_persisted(&first);
        let submitted = Submitted::new(&record, Arc::clone(config.spec.json()));
        match self.start(config, submitted) {
            // The next coordinator starts it.
            Err(SubmitError::Stopping) if self.journal.is_durable() => Ok(record.job),
            started => started,
        }
    }

    fn check_head(&self, spec: &JobSpec) -> Result<(), SubmitError> {
        let (classes, width) = (spec.labels.classes.count(), spec.head.width);
        // Including a message that each worker may be sending.
        let messages = (contract::message_bytes(spec) as u64).saturating_mul(spec.modalities.len() as u64);
        let needed =
            SharedHead::<f32>::memory_bytes(&spec.head, classes, spec.schedule.turn_batches).saturating_add(messages);
        if needed <= self.config.head_memory {
            return Ok(());
        }
        let (needed, limit) = (needed.div_ceil(1 << 20), self.config.head_memory >> 20);
        Err(SubmitError::HeadTooLarge { classes, width, needed, limit })
    }

    /// The threads that heads compute on.
    fn head_threads(&self) -> Result<HeadThreads, SubmitError> {
        let mut started = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(threads) = &*started {
            return Ok(threads.clone());
        }
        let threads = HeadThreads::new(self.config.head_threads)?;
        Ok(started.insert(threads).clone())
    }

    /// Reserves the id while this submission is being checked. If the same submission was accepted before and its
    /// answer was lost, returns that job.
    fn reserve(&self, submission: &Submission, name: &JobName) -> Result<Reserved, SubmitError> {
        let Submission { job: wanted, request, .. } = submission;
        let mut jobs = self.jobs();
        let mut requests = self.requests();
        if let Some(job) = request.as_ref().and_then(|request| requests.get(request)) {
            match jobs.get(job) {
                Some(Entry::Registered(_)) => return Ok(Reserved::Accepted(job.clone())),
                Some(Entry::Submitting) => return Err(SubmitError::Underway { job: job.clone() }),
                // The job was removed, or is being removed.
                Some(Entry::Removing) | None => {}
            }
        }
        let job = match wanted {
            Some(job) => job.clone(),
            None => fresh_id(name, |candidate| jobs.contains_key(candidate)),
        };
        if jobs.contains_key(&job) {
            return Err(SubmitError::Duplicate { job });
        }
        jobs.insert(job.clone(), Entry::Submitting);
        if let Some(request) = request {
            requests.insert(request.clone(), job.clone());
        }
        Ok(Reserved::New(Reservation { coordinator: self.clone(), job, request: request.clone() }))
    }

    async fn prepare(&self, job: &JobId, spec: Specification, resume: Option<&str>) -> Result<JobConfig, SubmitError> {
        let store = CheckpointStore::new(&self.job_folder(job, &spec)?).with_retry(self.retry(job).at_most(SUBMIT));
        let resume = match resume {
            None => None,
            Some(url) => {
                let retry = self.retry(job).at_most(SUBMIT);
                Some(Checkpoint::open_with(url, &self.config.stores, &retry).await?)
            }
        };
        let begins_at = resume.as_ref().map(|checkpoint| checkpoint.manifest().turn);
        if let Some(newest) = store.list().await?.last().copied()
            && begins_at.is_none_or(|turn| newest > turn)
        {
            return Err(SubmitError::Beyond { folder: store.url(), newest: newest.0 });
        }
        let resume = match &resume {
            None => None,
            Some(checkpoint) => {
                check_modalities(checkpoint, &spec)?;
                Some(Box::new(Resumed::load(checkpoint, &spec, &store).await?))
            }
        };
        let term = JobRecord::term_after(resume.as_ref().map(|resumed| resumed.term()), self.term());
        Ok(JobConfig { resume, ..self.job_config(job, spec, term, EventLog::open(&self.journal, job))? })
    }

    /// The configuration of a job without a checkpoint.
    pub(super) fn job_config(
        &self,
        job: &JobId,
        spec: Specification,
        term: Term,
        events: EventLog,
    ) -> Result<JobConfig, SubmitError> {
        Ok(JobConfig {
            id: job.clone(),
            term,
            store: CheckpointStore::new(&self.job_folder(job, &spec)?).with_retry(self.retry(job)),
            spec,
            resume: None,
            events,
            workers: Arc::new(JobWorkers::new(self.pool.clone(), job.clone())),
            threads: self.head_threads()?,
            retry: self.retry(job),
            replay_buffer: self.config.replay_buffer,
            journal: self.journal.clone(),
        })
    }

    /// The retry policy of a job's store before the job has a task. Different jobs back off for different times.
    pub(super) fn retry(&self, job: &JobId) -> RetryPolicy {
        let digest = sha256(job.as_str().as_bytes());
        let seed = digest.0.iter().take(8).fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
        let job = job.clone();
        RetryPolicy::new(self.config.store_retry_timeout, seed).on_retry(move |retry| {
            tracing::warn!(%job, %retry, "a request to the store failed; the coordinator \
                                          retries it")
        })
    }

    /// `<state>/<id>`, or `<to>/jobs/<id>` in the store that the specification names.
    pub(super) fn job_folder(&self, job: &JobId, spec: &JobSpec) -> Result<Store, StorageError> {
        match &spec.checkpoints.to {
            None => Ok(self.config.stores.open(&self.config.state)?.child(job.as_str())),
            Some(to) => Ok(self.config.stores.open(to)?.child("jobs").child(job.as_str())),
        }
    }

    /// Starts a job's task, and registers the job.
    pub(super) fn start(&self, config: JobConfig, submitted: Submitted) -> Result<JobId, SubmitError> {
        let (job, term) = (config.id.clone(), config.term);
        let modalities: Vec<ModalityName> = config.spec.modalities.iter().map(|m| m.name.clone()).collect();
        let lease = Duration::try_from_secs_f64(config.spec.schedule.lease_ttl).unwrap_or_default();
        let (events, message_bytes) = (config.events.clone(), contract::message_bytes(&config.spec));
        let mut jobs = self.jobs();
        if self.is_stopping() {
            return Err(SubmitError::Stopping);
        }
        let handle = (self.spawn)(config);
        let assignment = Assignment { job: job.clone(), inbox: handle.inbox.clone(), message_bytes, lease };
        self.pool.add_job(submitted.order, &modalities, assignment);
        let abort = Some(handle.task.abort_handle());
        let (inbox, status) = (handle.inbox, handle.status);
        jobs.insert(job.clone(), RegisteredJob::new(submitted, term, inbox, status, events, abort).into());
        drop(jobs);
        self.running.send_modify(|running| *running += 1);
        tokio::spawn(self.clone().supervise(job.clone(), handle.task));
        Ok(job)
    }
}

/// The id of a submission's job.
enum Reserved {
    /// The job was accepted before.
    Accepted(JobId),
    New(Reservation),
}

/// An id that is reserved while its submission is being checked. Dropping this frees the id, unless a job was created
/// for it. This also happens when the client has disconnected.
struct Reservation {
    coordinator: Coordinator,
    job: JobId,
    request: Option<RequestId>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut jobs = self.coordinator.jobs();
        if let Some(Entry::Submitting) = jobs.get(&self.job) {
            jobs.remove(&self.job);
            if let Some(request) = &self.request {
                self.coordinator.requests().remove(request);
            }
        }
    }
}

/// The job's name with a suffix that is unique in this coordinator. It is derived, not random, and short enough to
/// remain a name.
fn fresh_id(name: &JobName, taken: impl Fn(&JobId) -> bool) -> JobId {
    let stem: String = name.as_str().chars().take(54).collect();
    let started = clock::since_epoch();
    (0_u64..)
        .filter_map(|attempt| {
            let digest = sha256(format!("{name} {started:?} {attempt}").as_bytes()).to_string();
            JobId::try_from(format!("{stem}-{}", &digest[..8])).ok()
        })
        .find(|candidate| !taken(candidate))
        .expect("some number is free")
}

fn check_modalities(checkpoint: &Checkpoint, spec: &JobSpec) -> Result<(), SubmitError> {
    let manifest = checkpoint.manifest();
    if spec.modalities.iter().all(|modality| manifest.files.contains_key(&files::encoder(&modality.name))) {
        return Ok(());
    }
    let theirs: Vec<&str> = manifest.files.keys().filter_map(|name| files::modality_of(name)).collect();
    let ours: Vec<&str> = spec.modalities.iter().map(|modality| modality.name.as_str()).collect();
    Err(SubmitError::OtherModalities { checkpoint: checkpoint.url(), theirs: theirs.join(", "), ours: ours.join(", ") })
}
