//! Removes the jobs that ended longest ago, so that the state does not grow without limit. Their checkpoints stay.

use std::time::Duration;

use antiphon_core::ids::JobId;

use super::coordinator::Coordinator;
use super::entry::Entry;

/// The pause before a failed removal from the journal is retried.
const BACK_OFF: Duration = Duration::from_secs(10);

impl Coordinator {
    /// Removes the oldest finished jobs if there are more than the limit. Requests no longer find them from now on.
    /// Their ids become free when they are removed from the journal too.
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
                    // The next coordinator removes it.
                    return;
                }
                tracing::warn!(
                    %job,
                    %error,
                    "a finished job cannot be removed from the journal now; the coordinator retries"
                );
                tokio::time::sleep(BACK_OFF).await;
            }
            tracing::info!(%job, "an old finished job was removed from the journal");
            let mut jobs = self.jobs();
            self.requests().retain(|_, made| *made != job);
            jobs.remove(&job);
        }
    }
}
