//! A job that a cluster in this process runs, with its state in a temporary folder.

use antiphon_core::event::{Finished, JobEvent};
use antiphon_core::spec::JobSpec;
use antiphon_transport::ReconnectPolicy;
use anyhow::Context as _;
use tempfile::TempDir;

use super::cluster::{Cluster, ClusterConfig};
use crate::client::{self, Client, Events, Silent};

/// One job. Its cluster ends and its folder is deleted when this value is dropped.
pub(crate) struct LocalJob {
    job: String,
    client: Client,
    events: Events,
    cluster: Cluster,
    _state: TempDir,
}

impl LocalJob {
    /// Starts a cluster and submits the job, which writes its checkpoints into the temporary folder. `configure`
    /// changes the settings of [`ClusterConfig::for_job`].
    ///
    /// # Errors
    /// The cluster cannot be started, or refuses the job.
    pub(crate) async fn start(
        mut spec: JobSpec,
        resume: Option<String>,
        configure: impl FnOnce(&mut ClusterConfig),
    ) -> anyhow::Result<Self> {
        let state = tempfile::tempdir().context("cannot create a temporary folder")?;
        spec.checkpoints.to = None;
        let mut config = ClusterConfig::for_job(&spec, state.path().display().to_string());
        configure(&mut config);
        let cluster = Cluster::start(config).await?;
        let client = Client::to_own_process(&cluster.url())?;
        let job = client.submit(client::request(&spec, None, resume)).await?;
        let events = Events::new(client.clone(), &job, 0, ReconnectPolicy::ONCE);
        Ok(Self { job, client, events, cluster, _state: state })
    }

    /// The next event. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The coordinator or a worker fails, or the events have ended. The last event is [`JobEvent::Finished`].
    pub(crate) async fn next(&mut self) -> anyhow::Result<JobEvent> {
        let mut silent = Silent;
        tokio::select! {
            watched = self.events.next(&mut silent) => Ok(watched?.event),
            error = self.cluster.failed() => Err(error),
        }
    }

    /// Asks the job to stop at its next turn boundary.
    pub(crate) async fn request_stop(&mut self) -> anyhow::Result<()> {
        self.client.stop(&self.job, false).await?;
        Ok(())
    }

    /// Stops first the workers, then the coordinator.
    pub(crate) async fn end(self) {
        self.cluster.stop().await;
    }
}

/// The reason why a job ended without success.
pub(crate) fn reason(finished: Finished) -> String {
    finished.reason.unwrap_or_else(|| "the job was stopped".to_owned())
}
