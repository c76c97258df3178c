//! Jobs that were over longest ago are forgotten, so that the state does not grow for ever. Their checkpoints are not touched.

use std::time::Duration;

use antiphon_core::ids::JobId;

use super::coordinator::{Coordinator, Entry};

/// Before a journal that does not forget a job is asked again.
const AGAIN: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Forgets the oldest of the jobs that are over, if there are more than are kept. Nobody finds them from now on; their ids are
    /// free when the journal has forgotten them too.
    pub(super) fn prune(&self) {
        let mut jobs = self.jobs();
        let mut over: Vec<(u64, JobId)> =
            jobs.iter().filter_map(|(job, entry)| Some((entry.held()?.over?, job.clone()))).collect();
        over.sort_unstable();
        over.truncate(over.len().saturating_sub(self.config.keep_jobs));
        let removed: Vec<JobId> = over.into_iter().map(|(_, job)| job).collect();
        for job in &removed {
            jobs.insert(job.clone(), Entry::Removing);
        }
        drop(jobs);
        if !removed.is_empty() {
            tokio::spawn(self.clone().forget(removed));
        }
    }

    async fn forget(self, removed: Vec<JobId>) {
        for job in removed {
            while let Err(error) = self.journal.remove_job(&job).await {
                if self.journal.is_closed() {
                    // The next coordinator finds it.
                    return;
                }
                tracing::warn!(%job, %error, "a job that is over long ago is not forgotten yet; trying again");
                tokio::time::sleep(AGAIN).await;
            }
            tracing::info!(%job, "a job that is over long ago is forgotten");
            let mut jobs = self.jobs();
            self.requests().retain(|_, made| *made != job);
            jobs.remove(&job);
        }
    }
}
