//! Following a job of a remote coordinator, up to a timeout.

use std::pin::pin;
use std::time::Duration;

use antiphon_core::spec::JobSpec;
use antiphon_transport::ReconnectPolicy;
use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::ending::{Followed, OnInterrupt};
use super::following::follow;
use super::remarks::Remarks;
use crate::client::{Client, ClientError, Reconnect};
use crate::exit::{Exit, OrExit as _};
use crate::output::Format;

/// Default of --reconnect-timeout, in seconds.
pub(crate) const RECONNECT_TIMEOUT: u64 = 600;
/// Time before the timeout at which the coordinator is asked why the job waits.
const ASK: Duration = Duration::from_millis(500);

/// The time limit of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) seconds: u64,
    pub(crate) ends: Instant,
}

impl Limit {
    /// A limit this many seconds from now; None if that is beyond the range of the clock.
    pub(crate) fn from_now(seconds: u64) -> Option<Self> {
        Some(Self { seconds, ends: Instant::now().checked_add(Duration::from_secs(seconds))? })
    }
}

/// A job to follow, and the settings for it.
pub(crate) struct Watching {
    client: Client,
    job: String,
    format: Format,
    /// Seconds for which an unreachable coordinator is retried.
    reconnect_timeout: u64,
    limit: Option<Limit>,
    /// The command that resumes the job, followed by a checkpoint.
    resume: String,
}

impl Watching {
    /// Follows a job without a timeout.
    pub(crate) fn new(client: Client, job: &str, format: Format, reconnect_timeout: u64, resume: String) -> Self {
        Self { client, job: job.to_owned(), format, reconnect_timeout, limit: None, resume }
    }

    #[must_use]
    pub(crate) fn until(self, limit: Option<Limit>) -> Self {
        Self { limit, ..self }
    }

    /// The specification of the job.
    ///
    /// # Errors
    /// There is no such job, no coordinator answers, or the timeout is over.
    pub(crate) async fn specification(&self) -> anyhow::Result<JobSpec> {
        let Some(limit) = self.limit else { return self.asked().await };
        timeout_at(limit.ends, self.asked()).await.unwrap_or_else(|_| {
            let (url, seconds) = (self.client.url(), limit.seconds);
            Err(anyhow!("no answer from the coordinator at {url} after {seconds} s")).or_exit(Exit::TimedOut)
        })
    }

    async fn asked(&self) -> anyhow::Result<JobSpec> {
        let timeout = self.limit.map_or(u64::MAX, |limit| limit.seconds).min(self.reconnect_timeout);
        let mut remarks = Remarks { format: self.format, job: Some(self.job.clone()), timeout };
        let mut reconnect = Reconnect::new(self.policy(), &self.job);
        let ask = |within| {
            let (client, job) = (self.client.clone(), self.job.clone());
            async move { client.within(within, client.job(&job)).await }
        };
        let (_, specification) = reconnect.until(ask, &mut remarks).await.map_err(ClientError::advised)?;
        reconnect.reconnected(&mut remarks)?;
        JobSpec::from_json(&specification).context(
            "cannot read the specification of the job; check that client and coordinator have the same \
             version",
        )
    }

    fn policy(&self) -> ReconnectPolicy {
        ReconnectPolicy::new(Duration::from_secs(self.reconnect_timeout))
    }

    /// Shows the job's events with numbers above `after`, until the job ends.
    ///
    /// # Errors
    /// The coordinator stays unreachable, or the timeout is over.
    pub(crate) async fn until_over(&self, spec: &JobSpec, after: u64) -> anyhow::Result<Followed> {
        let on_interrupt = OnInterrupt::Leave(self.resume.clone());
        let following = follow(&self.client, &self.job, (spec, after), self.format, on_interrupt, self.policy());
        let mut following = pin!(async { following.await.map_err(advised) });
        let Some(limit) = self.limit else { return following.await };
        tokio::select! {
            followed = &mut following => followed,
            reason = self.reached(limit) => {
                let (job, seconds) = (&self.job, limit.seconds);
                Err(anyhow!("job {job} has not ended after {seconds} s: {reason}; it keeps running"))
                    .or_exit(Exit::TimedOut)
            }
        }
    }

    /// Waits until the timeout, and returns why the job has not ended.
    async fn reached(&self, limit: Limit) -> String {
        sleep_until(limit.ends.checked_sub(ASK).unwrap_or(limit.ends)).await;
        let status = timeout_at(limit.ends, self.client.job(&self.job)).await;
        sleep_until(limit.ends).await;
        match status {
            Err(_) => "the coordinator does not answer".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Ok(Ok((status, _))) if status.reason.is_empty() => {
                format!("{} of {} turns are done", status.turn, status.turns)
            }
            Ok(Ok((status, _))) => status.reason,
        }
    }
}

/// As [`ClientError::advised`].
fn advised(error: anyhow::Error) -> anyhow::Error {
    error.downcast::<ClientError>().map_or_else(|other| other, |error| error.advised().into())
}
