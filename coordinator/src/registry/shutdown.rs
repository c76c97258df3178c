//! Shutdown of a coordinator: its jobs reach a turn boundary and write a checkpoint, if they can.

use std::time::Duration;

use antiphon_core::ids::JobId;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::coordinator::Coordinator;
use super::entry::Entry;
use crate::job::contract::JobInput;

/// The timeout of the last writes to the journal.
const CLOSE: Duration = Duration::from_secs(15);
/// The interval at which the log lists jobs that have not stopped.
const REPORT_EVERY: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Accepts no further jobs and workers, stops every job at a turn boundary, and aborts those that do not reach one
    /// in time. Jobs in the journal are suspended, not over. Everything is persisted when this returns.
    pub async fn stop_all(&self) {
        self.stopping.cancel();
        let jobs: Vec<JobId> = self.jobs().keys().cloned().collect();
        let stop = async {
            let tell = |job| {
                let input = if self.journal.is_durable() { JobInput::Suspend } else { JobInput::Stop { now: true } };
                self.tell(job, input)
            };
            // At the same time: a job whose inbox is full must not delay the others.
            let _unknown = futures::future::join_all(jobs.iter().map(tell)).await;
            self.all_over().await;
        };
        let stopped = async {
            if timeout(self.config.stop_within, stop).await.is_err() {
                self.end_all().await;
            }
        };
        tokio::select! {
            () = stopped => {}
            () = self.report_running_jobs() => {}
        }
        if self.journal_error().is_none()
            && let closed = timeout(CLOSE, self.journal.close()).await
            && !matches!(closed, Ok(Ok(())))
        {
            tracing::warn!("the journal was not closed in time; the last events may be lost");
        }
    }

    async fn end_all(&self) {
        tracing::warn!(
            seconds = self.config.stop_within.as_secs(),
            "some jobs did not stop in time; the coordinator \
             aborts them"
        );
        self.abort_all();
        if timeout(self.config.stop_within, self.all_over()).await.is_err() {
            tracing::warn!(
                "the store does not accept the last events of jobs; the coordinator shuts down without \
                 them"
            );
        }
    }

    /// Logs which jobs have not stopped, until it is dropped.
    async fn report_running_jobs(&self) {
        let mut report = interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            report.tick().await;
            let jobs = self.jobs();
            for (job, entry) in jobs.iter().filter_map(|(job, entry)| Some((job, entry.job()?))) {
                match &entry.abort {
                    Some(task) if !task.is_finished() => {
                        let reason = entry.view(job).status.reason;
                        tracing::info!(%job, reason, "the coordinator shuts down; a job has not stopped yet");
                    }
                    Some(_) if !entry.is_persisted => {
                        tracing::info!(%job, "the coordinator shuts down; the last events of a job are being written");
                    }
                    Some(_) | None => {}
                }
            }
        }
    }

    pub(super) fn abort_all(&self) {
        self.jobs()
            .values()
            .filter_map(Entry::job)
            .filter_map(|entry| entry.abort.as_ref())
            .for_each(|job| job.abort());
    }

    async fn all_over(&self) {
        // The sender lives as long as this coordinator.
        let mut running = self.running.subscribe();
        let _count = running.wait_for(|running| *running == 0).await;
    }
}
