//! What a coordinator finds when it starts: jobs that are over are listed, the others go on from their newest checkpoints, in
//! order of submission.

use std::sync::atomic::Ordering;
use std::time::Duration;

use antiphon_core::event::{FinalState, Finished, JobEvent};
use antiphon_core::ids::{JobId, Term, Turn};
use antiphon_core::spec::JobSpec;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError};
use tokio::sync::{mpsc, watch};

use super::{Coordinator, Entry, Held};
use crate::events::EventLog;
use crate::journal::{EndRecord, JobRecord, JournalError, Recorded};
use crate::seam::{JobConfig, JobInput, JobState, JobStatus};

/// Before a store is asked again for a job's checkpoints.
const AGAIN: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Takes in all jobs of the journal.
    ///
    /// # Errors
    /// The journal cannot be read. A job that cannot go on fails, and the others do not notice.
    pub(super) async fn recover(&self) -> Result<(), JournalError> {
        let jobs = self.journal.jobs().await?;
        let next = jobs.last().map_or(0, |job| job.record.order + 1);
        self.submissions.store(next, Ordering::Relaxed);
        let unfinished = jobs.iter().filter(|job| job.end.is_none()).count();
        tracing::info!(term = %self.term(), jobs = jobs.len(), unfinished, "the journal is open");
        for Recorded { record, stop, end } in jobs {
            if let Some(request) = &record.request {
                self.requests().insert(request.clone(), record.job.clone());
            }
            match end {
                Some(end) => self.list_over(&record, &end),
                None => self.go_on(&record, stop).await,
            }
        }
        Ok(())
    }

    /// Goes on with a job, or says why that cannot be.
    async fn go_on(&self, record: &JobRecord, stop: bool) {
        let job = &record.job;
        let gone = format!("the coordinator of term {} is gone", self.term().0.saturating_sub(1));
        let failed = match self.again(record).await {
            Ok(config) => {
                let recovered = recovered(&config, gone);
                if let Err(error) = config.events.append(&recovered) {
                    tracing::error!(%job, %error, "an event is lost");
                }
                match self.start(config) {
                    Ok(job) if stop => return self.stop_at_once(&job),
                    Ok(_) => return,
                    // Another one has taken over already; it goes on with the job.
                    Err(_) => return,
                }
            }
            Err(reason) => reason,
        };
        tracing::error!(%job, reason = failed, "the job cannot go on");
        let events = EventLog::of(&self.journal, job);
        let finished = Finished {
            job: job.clone(),
            state: FinalState::Failed,
            reason: Some(failed),
            turn: Turn(0),
            checkpoint: None,
            digest: None,
            best: None,
            evaluation: None,
        };
        if let Err(error) = events.close(|| finished.clone()) {
            tracing::error!(%job, %error, "its last event is lost");
        }
        self.hold_over(record, record.term_under(self.term()), &finished, events);
    }

    /// The job as it was submitted, from its own newest checkpoint, or else from the one that it began from.
    async fn again(&self, record: &JobRecord) -> Result<JobConfig, String> {
        let spec = JobSpec::from_json(&record.specification).map_err(|errors| errors.to_string())?;
        let mut config =
            self.job_config(&record.job, spec, record.term_under(self.term())).map_err(|error| error.to_string())?;
        let newest = self.newest(&config).await?;
        config.resume = match (newest, &record.resume) {
            (Some(newest), _) => {
                // Somebody may have gone on with its folder by other means.
                config.term = config.term.max(newest.manifest().term.next());
                Some(newest)
            }
            (None, Some(url)) => Some(
                Checkpoint::open_patiently(url, &self.patience(&record.job))
                    .await
                    .map_err(|error| error.to_string())?,
            ),
            (None, None) => None,
        };
        Ok(config)
    }

    /// The newest checkpoint of a job. A store that does not answer, or not to these credentials, ends no job that it holds.
    async fn newest(&self, config: &JobConfig) -> Result<Option<Checkpoint>, String> {
        loop {
            match config.store.newest().await {
                Ok(newest) => return Ok(newest),
                Err(error @ CheckpointError::Request { .. }) => {
                    tracing::warn!(job = %config.id, %error, "a job cannot go on yet; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn stop_at_once(&self, job: &JobId) {
        // Its inbox is new and has room.
        let _told = self.with_job(job, |held| drop(held.inbox.try_send(JobInput::Stop)));
    }

    fn list_over(&self, record: &JobRecord, end: &EndRecord) {
        let events = EventLog::finished(&self.journal, &record.job, end.last_event);
        self.hold_over(record, record.term_under(end.reign), &end.finished, events);
    }

    /// Holds a job that is over.
    fn hold_over(&self, record: &JobRecord, term: Term, finished: &Finished, events: EventLog) {
        let status = JobStatus {
            state: match finished.state {
                FinalState::Succeeded => JobState::Succeeded,
                FinalState::Stopped => JobState::Stopped,
                FinalState::Failed => JobState::Failed,
            },
            turn: finished.turn,
            checkpoint: finished.checkpoint.clone(),
            ..JobStatus::waiting(finished.reason.clone().unwrap_or_default())
        };
        let held = Held {
            name: record.name.clone(),
            term,
            // Nobody reads it.
            inbox: mpsc::channel(1).0,
            status: watch::channel(status).1,
            events,
            abort: None,
            ended: None,
        };
        self.jobs().insert(record.job.clone(), Entry::Held(held));
    }
}

fn recovered(config: &JobConfig, reason: String) -> JobEvent {
    let turn = config.resume.as_ref().map_or(Turn(0), |checkpoint| checkpoint.manifest().turn);
    let checkpoint = config.resume.as_ref().map(Checkpoint::url);
    JobEvent::Recovered { job: config.id.clone(), term: config.term, turn, checkpoint, reason }
}
