//! `antiphon follow JOB`: shows the events of a job that was submitted before, until it ends.

use std::pin::pin;
use std::time::Duration;

use antiphon_core::spec::JobSpec;
use antiphon_proto::v1::JobStatus;
use anyhow::{Context as _, anyhow};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::client::Client;
use crate::exit::{self, Exit, OrExit as _};
use crate::follow::{self, OnInterrupt};
use crate::outage::Outage;
use crate::output::{self, Format};

/// Seconds that a coordinator which goes away is waited for by default.
const PATIENCE: u64 = 600;
/// How long before the limit a job is asked what it waits for.
const ASK: Duration = Duration::from_millis(500);

/// Show a job's events until it ends
///
/// From its first event on, also those of a job that is over. The exit code is the job's. Ctrl-C stops watching, not the job.
#[derive(Debug, clap::Args)]
pub struct FollowArgs {
    /// The job's id, as `antiphon submit` printed it and `antiphon jobs` lists it
    #[arg(value_name = "JOB")]
    pub job: String,

    /// Coordinator that has it
    #[arg(long, env = "ANTIPHON_COORDINATOR", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub coordinator: String,

    /// Seconds to try to reach a coordinator that is away, before exit code 3; 0 gives up at once
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE)]
    pub reconnect_for: u64,

    /// Seconds that the job may take from now, before exit code 4 [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Follows.
///
/// # Errors
/// No such job, no coordinator, or a time limit.
pub async fn run(args: FollowArgs, format: Format) -> anyhow::Result<Exit> {
    let watching = Watching {
        client: Client::new(&args.coordinator)?,
        format,
        patience: patience(Some(args.reconnect_for)),
        limit: args.timeout.and_then(Limit::from_now),
    };
    let asking = watching.asked(&args.job);
    let (_, spec) = match watching.limit {
        None => asking.await,
        Some(limit) => timeout_at(limit.ends, asking).await.unwrap_or_else(|_| {
            Err(anyhow!("no answer from the coordinator at {} after {} s", args.coordinator, limit.seconds))
                .or_exit(Exit::TimedOut)
        }),
    }?;
    watching.until_over(&args.job, &spec).await
}

/// For how long a coordinator is waited for that goes away.
pub(super) fn patience(seconds: Option<u64>) -> Duration {
    Duration::from_secs(seconds.unwrap_or(PATIENCE))
}

/// Whoever watches a job.
pub(super) struct Watching {
    pub(super) client: Client,
    pub(super) format: Format,
    /// How long a coordinator is waited for that is away.
    pub(super) patience: Duration,
    pub(super) limit: Option<Limit>,
}

impl Watching {
    /// How the job is doing, and what it is, from a coordinator that may be away.
    async fn asked(&self, job: &str) -> anyhow::Result<(JobStatus, JobSpec)> {
        let mut client = self.client.clone();
        let mut outage = Outage::new(Instant::now(), self.patience);
        loop {
            sleep_until(outage.try_again()).await;
            let answer = timeout(outage.within(Instant::now()), client.job(job)).await;
            let silent =
                || Err(anyhow!("no answer from the coordinator at {}", client.url())).or_exit(Exit::Unreachable);
            let error = match answer.unwrap_or_else(|_| silent()) {
                Ok((status, specification)) => return Ok((status, understood(&specification)?)),
                Err(error) if exit::of(&error) != Exit::Unreachable => return Err(error),
                Err(error) => error,
            };
            let now = Instant::now();
            let seconds = outage.seconds(now);
            let said = error.to_string();
            if outage.failed(now, said.clone(), job).is_none() {
                let waited =
                    if self.patience.is_zero() { String::new() } else { format!("; gave up after {seconds} s") };
                return Err(anyhow!("{said}{waited}")).or_exit(Exit::Unreachable);
            }
            if outage.say_at() <= now {
                outage.said(now);
                let up_to = self.patience.as_secs();
                match self.format {
                    Format::Json => output::json(
                        &serde_json::json!({"event": "unreachable", "job": job, "seconds": seconds, "error": said}),
                    )?,
                    Format::Text => output::complain(&format!("{said}; trying again for up to {up_to} s"))?,
                }
            }
        }
    }

    /// Shows a job's events until it ends, or the time is up.
    pub(super) async fn until_over(&self, job: &str, spec: &JobSpec) -> anyhow::Result<Exit> {
        let mut client = self.client.clone();
        let mut following =
            pin!(follow::follow(&mut client, job, spec, self.format, OnInterrupt::Leave, self.patience));
        let Some(limit) = self.limit else { return following.await };
        tokio::select! {
            exit = &mut following => exit,
            reason = limit.reached(self.client.clone(), job) => {
                let seconds = limit.seconds;
                Err(anyhow!("job {job} is not done after {seconds} s: {reason}; it goes on without being followed"))
                    .or_exit(Exit::TimedOut)
            }
        }
    }
}

/// A specification as a coordinator tells it.
///
/// # Errors
/// The coordinator is of another version.
pub(super) fn understood(specification: &str) -> anyhow::Result<JobSpec> {
    JobSpec::from_json(specification)
        .context("the job's specification is not understood; is the coordinator of another version?")
}

/// The time that all of it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) seconds: u64,
    pub(super) ends: Instant,
}

impl Limit {
    /// None where the time is longer than clocks go.
    pub(super) fn from_now(seconds: u64) -> Option<Self> {
        Some(Self { seconds, ends: Instant::now().checked_add(Duration::from_secs(seconds))? })
    }

    /// Waits until it is reached; what the job waits for then, whether its coordinator says so or not.
    async fn reached(&self, mut client: Client, job: &str) -> String {
        sleep_until(self.ends.checked_sub(ASK).unwrap_or(self.ends)).await;
        let status = timeout_at(self.ends, client.job(job)).await;
        sleep_until(self.ends).await;
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
