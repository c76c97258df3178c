//! The end of a coordinator: its jobs reach a turn boundary and have a checkpoint, if that can be.

use std::time::Duration;

use antiphon_core::ids::JobId;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::coordinator::{Coordinator, Entry};
use crate::job::contract::JobInput;

/// How long the journal has to take what is left, at the end.
const CLOSE: Duration = Duration::from_secs(15);
/// How often it is said which jobs are waited for.
const SAY_AGAIN: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Takes no more jobs and workers, stops every job at a turn boundary, and ends those that are not there in time. Jobs
    /// that the journal has are not over then; it has everything when this returns.
    pub async fn stop_all(&self) {
        self.stopping.cancel();
        let jobs: Vec<JobId> = self.jobs().keys().cloned().collect();
        let stop = async {
            let tell = |job| {
                let input = if self.journal.is_durable() { JobInput::Suspend } else { JobInput::Stop { now: true } };
                self.tell(job, input)
            };
            // At once: one whose inbox is full does not keep the others from hearing.
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
            () = self.say_who_is_waited_for() => {}
        }
        if self.has_fallen().is_none()
            && let closed = timeout(CLOSE, self.journal.close()).await
            && !matches!(closed, Ok(Ok(())))
        {
            tracing::warn!("the journal is not closed: what happened last may be lost");
        }
    }

    async fn end_all(&self) {
        tracing::warn!(seconds = self.config.stop_within.as_secs(), "jobs did not stop in time; ending them");
        self.abort_all();
        if timeout(self.config.stop_within, self.all_over()).await.is_err() {
            tracing::warn!("the store does not take the last events of jobs; leaving them");
        }
    }

    /// Says so again and again, for ever.
    async fn say_who_is_waited_for(&self) {
        let mut say = interval_at(Instant::now() + SAY_AGAIN, SAY_AGAIN);
        say.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            say.tick().await;
            let jobs = self.jobs();
            for (job, held) in jobs.iter().filter_map(|(job, entry)| Some((job, entry.held()?))) {
                match &held.abort {
                    Some(task) if !task.is_finished() => {
                        let reason = held.view(job).status.reason;
                        tracing::info!(%job, reason, "shutting down; a job has not stopped yet");
                    }
                    Some(_) if !held.is_left => {
                        tracing::info!(%job, "shutting down; the last events of a job are being written");
                    }
                    Some(_) | None => {}
                }
            }
        }
    }

    pub(super) fn abort_all(&self) {
        self.jobs().values().filter_map(Entry::held).filter_map(|held| held.abort.as_ref()).for_each(|job| job.abort());
    }

    async fn all_over(&self) {
        // The sender lives as long as this coordinator does.
        let mut running = self.running.subscribe();
        let _count = running.wait_for(|running| *running == 0).await;
    }
}
