//! Forgets the jobs that were over longest ago, so that the state does not grow without bound. Their checkpoints are
//! not touched.

use std::time::Duration;

use antiphon_core::ids::JobId;

use super::coordinator::Coordinator;
use super::entry::Entry;

/// The pause before a journal that does not forget a job is asked again.
const BACK_OFF: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Forgets the oldest of the jobs that are over, if there are more than are to be known. From now on no request
    /// finds them; their ids are free when the journal has forgotten them too.
    pub(super) fn prune(&self) {
        let mut jobs = self.jobs();
        let mut over: Vec<(u64, JobId)> =
            jobs.iter().filter_map(|(job, entry)| Some((entry.job()?.over?, job.clone()))).collect();
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
                tracing::warn!(%job, %error, "the journal has not forgotten a job that is over; retrying");
                tokio::time::sleep(BACK_OFF).await;
            }
            tracing::info!(%job, "a job that was over long ago is forgotten");
            let mut jobs = self.jobs();
            self.requests().retain(|_, made| *made != job);
            jobs.remove(&job);
        }
    }
}
