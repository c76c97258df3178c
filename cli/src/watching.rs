//! Watching a job of a coordinator from elsewhere, for as long as somebody wants to.

use std::pin::pin;
use std::time::Duration;

use antiphon_core::spec::JobSpec;
use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::client::Client;
use crate::exit::{self, Exit, OrExit as _};
use crate::follow::{self, Followed, OnInterrupt};
use crate::outage::Outage;
use crate::output::Format;
use crate::remarks::Remarks;

/// Seconds that a coordinator which goes away is waited for by default.
pub(crate) const RECONNECT_TIMEOUT: u64 = 600;
/// How long before the limit a job is asked what it waits for.
const ASK: Duration = Duration::from_millis(500);

/// The time that all of it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) seconds: u64,
    pub(crate) ends: Instant,
}

impl Limit {
    /// None where the time is longer than clocks go.
    pub(crate) fn from_now(seconds: u64) -> Option<Self> {
        Some(Self { seconds, ends: Instant::now().checked_add(Duration::from_secs(seconds))? })
    }
}

/// Whoever watches a job.
pub(crate) struct Watching {
    client: Client,
    job: String,
    format: Format,
    /// How long a coordinator is waited for that is away.
    patience: Duration,
    limit: Option<Limit>,
}

impl Watching {
    pub(crate) fn new(client: Client, job: &str, format: Format, reconnect_timeout: u64, limit: Option<Limit>) -> Self {
        Self { client, job: job.to_owned(), format, patience: Duration::from_secs(reconnect_timeout), limit }
    }

    /// What the job is, from a coordinator that may be away.
    ///
    /// # Errors
    /// There is no such job, no coordinator, or the time is up.
    pub(crate) async fn specification(&self) -> anyhow::Result<JobSpec> {
        let Some(limit) = self.limit else { return self.asked().await };
        timeout_at(limit.ends, self.asked()).await.unwrap_or_else(|_| {
            let (url, seconds) = (self.client.url(), limit.seconds);
            Err(anyhow!("no answer from the coordinator at {url} after {seconds} s")).or_exit(Exit::TimedOut)
        })
    }

    async fn asked(&self) -> anyhow::Result<JobSpec> {
        let up_to = self.limit.map_or(u64::MAX, |limit| limit.seconds).min(self.patience.as_secs());
        let remarks = Remarks { format: self.format, job: Some(self.job.clone()), up_to };
        let mut client = self.client.clone();
        let mut outage = Outage::new(Instant::now(), self.patience);
        loop {
            sleep_until(outage.try_again()).await;
            let answer = timeout(outage.within(Instant::now()), client.job(&self.job)).await;
            let silent =
                || Err(anyhow!("no answer from the coordinator at {}", client.url())).or_exit(Exit::Unreachable);
            let error = match answer.unwrap_or_else(|_| silent()) {
                Ok((_, specification)) => {
                    if outage.has_failed() {
                        remarks.reached(outage.seconds(Instant::now()))?;
                    }
                    return JobSpec::from_json(&specification)
                        .context("the job's specification is not understood; is the coordinator of another version?");
                }
                Err(error) if exit::of(&error) != Exit::Unreachable => return Err(error),
                Err(error) => error.to_string(),
            };
            let now = Instant::now();
            let seconds = outage.seconds(now);
            if outage.failed(now, error.clone(), &self.job).is_none() {
                let waited =
                    if self.patience.is_zero() { String::new() } else { format!("; gave up after {seconds} s") };
                return Err(anyhow!("{error}{waited}")).or_exit(Exit::Unreachable);
            }
            if outage.say_at() <= now {
                outage.said(now);
                remarks.unreachable(seconds, &error)?;
            }
        }
    }

    /// Shows the job's events, those numbered above `after`, until it ends.
    ///
    /// # Errors
    /// The coordinator goes away and does not come back, or the time is up.
    pub(crate) async fn until_over(&self, spec: &JobSpec, after: u64) -> anyhow::Result<Followed> {
        let mut client = self.client.clone();
        let following =
            follow::follow(&mut client, &self.job, (spec, after), self.format, OnInterrupt::Leave, self.patience);
        let mut following = pin!(following);
        let Some(limit) = self.limit else { return following.await };
        tokio::select! {
            followed = &mut following => followed,
            reason = self.reached(limit) => {
                let (job, seconds) = (&self.job, limit.seconds);
                Err(anyhow!("job {job} is not done after {seconds} s: {reason}; it goes on without being followed"))
                    .or_exit(Exit::TimedOut)
            }
        }
    }

    /// Waits until the time is up; what the job waits for then, whether its coordinator says so or not.
    async fn reached(&self, limit: Limit) -> String {
        sleep_until(limit.ends.checked_sub(ASK).unwrap_or(limit.ends)).await;
        let mut client = self.client.clone();
        let status = timeout_at(limit.ends, client.job(&self.job)).await;
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
