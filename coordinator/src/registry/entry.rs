//! The registry's entry for a job, and the view of it for clients.

use std::sync::Arc;
use std::time::Duration;

use antiphon_core::event::{FinalState, Finished};
use antiphon_core::ids::{JobId, JobName, Term};
use tokio::sync::{mpsc, watch};

use crate::events::EventLog;
use crate::job::contract::{JobInput, JobState, JobStatus};
use crate::journal::JobRecord;

/// If a worker has had the head for longer than this, the status says for how long.
const LONG: Duration = Duration::from_secs(10);

/// A job as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub job: JobId,
    /// Its name.
    pub name: JobName,
    /// Its number in the order of submission.
    pub order: u64,
    /// Seconds since 1970 at its submission, by the coordinator's clock.
    pub submitted: u64,
    /// The term under which it runs.
    pub term: Term,
    /// The status of the job.
    pub status: JobStatus,
    /// The number of its last event.
    pub last_event: u64,
}

/// The registry's entry for a job id.
pub(super) enum Entry {
    /// A submission that is being checked.
    Submitting,
    /// A job that is being removed from the journal.
    Removing,
    Registered(RegisteredJob),
}

/// A job that is running, recovering or over.
pub(super) struct RegisteredJob {
    pub(super) submitted: Submitted,
    pub(super) term: Term,
    pub(super) inbox: mpsc::Sender<JobInput>,
    pub(super) status: watch::Receiver<JobStatus>,
    pub(super) events: EventLog,
    /// Aborts the job's task. None if the job was over before this coordinator started.
    pub(super) abort: Option<tokio::task::AbortHandle>,
    /// The reason, set when the job's task has ended, in case its last status is not final.
    pub(super) ended: Option<&'static str>,
    /// The end of the job in milliseconds since 1970, set after it is persisted.
    pub(super) over: Option<u64>,
    /// Whether its task has ended and its last events are persisted.
    pub(super) is_persisted: bool,
}

/// The submission of a job.
#[derive(Debug, Clone)]
pub(super) struct Submitted {
    pub(super) name: JobName,
    /// Its number in the order of submission.
    pub(super) order: u64,
    /// Seconds since 1970.
    pub(super) at: u64,
    /// As [`JobSpec::to_json`](antiphon_core::spec::JobSpec::to_json) writes it.
    pub(super) specification: Arc<str>,
}

impl Submitted {
    /// The submission of a record. `specification` is the record's.
    pub(super) fn new(record: &JobRecord, specification: Arc<str>) -> Self {
        Self { name: record.name.clone(), order: record.order, at: record.submitted, specification }
    }
}

impl From<&JobRecord> for Submitted {
    fn from(record: &JobRecord) -> Self {
        Self::new(record, record.specification.as_str().into())
    }
}

impl From<RegisteredJob> for Entry {
    fn from(job: RegisteredJob) -> Self {
        Self::Registered(job)
    }
}

impl Entry {
    pub(super) fn job(&self) -> Option<&RegisteredJob> {
        match self {
            Self::Submitting | Self::Removing => None,
            Self::Registered(job) => Some(job),
        }
    }

    pub(super) fn job_mut(&mut self) -> Option<&mut RegisteredJob> {
        match self {
            Self::Submitting | Self::Removing => None,
            Self::Registered(job) => Some(job),
        }
    }
}

impl RegisteredJob {
    /// A job that is not over.
    pub(super) fn new(
        submitted: Submitted,
        term: Term,
        inbox: mpsc::Sender<JobInput>,
        status: watch::Receiver<JobStatus>,
        events: EventLog,
        abort: Option<tokio::task::AbortHandle>,
    ) -> Self {
        Self { submitted, term, inbox, status, events, abort, ended: None, over: None, is_persisted: false }
    }

    pub(super) fn view(&self, job: &JobId) -> JobView {
        let mut status = self.status.borrow().clone();
        if let Some(reason) = self.ended.filter(|_| !status.state.is_final()) {
            status.state = JobState::Failed;
            status.reason = reason.to_owned();
            status.since = None;
        }
        if status.state.is_final() && self.ended.is_none() && !self.events.has_published_end() {
            status.state = JobState::Running;
            status.reason = "its end is being written to the journal".to_owned();
        }
        if self.events.is_full() {
            status.reason = "the store accepts no events; turns wait for it".to_owned();
            status.since = None;
        }
        if let Some(time) = status.since.map(|since| since.elapsed()).filter(|time| *time >= LONG) {
            status.reason = format!("{}, for {} s now", status.reason, time.as_secs());
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
    /// The last event of a job whose task did not append one.
    pub(super) fn finished(&self) -> Finished {
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
    use crate::journal::Journal;
    use antiphon_core::event::JobEvent;
    use antiphon_store::storage::Store;

    use super::*;

    #[tokio::test]
    async fn a_job_whose_events_the_journal_does_not_take_says_so() {
        let state = Store::open("memory://full/state").expect("memory opens");
        let journal = Journal::open(&state).await.expect("it opens");
        let job = JobId::try_from("j").expect("an id");
        let events = EventLog::open(&journal, &job);
        let name = "j".try_into().expect("a name");
        let submitted = Submitted { name, order: 0, at: 0, specification: "{}".into() };
        let (inbox, status) = (mpsc::channel(1).0, watch::channel(JobStatus::waiting("something else")).1);
        let entry = RegisteredJob::new(submitted, Term(1), inbox, status, events.clone(), None);
        assert_eq!(entry.view(&job).status.reason, "something else");
        // The task that persists them does not run in the meantime.
        while !events.is_full() {
            let waiting = JobEvent::Waiting { job: job.clone(), reason: "something".to_owned(), seconds: 0.0 };
            events.append(&waiting).expect("the log is open");
        }
        assert_eq!(entry.view(&job).status.reason, "the store accepts no events; turns wait for it");
        events.wait_for_capacity().await;
        assert_eq!(entry.view(&job).status.reason, "something else");
    }
}
