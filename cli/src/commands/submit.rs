//! `antiphon submit JOB.yaml`: sends a job to a coordinator, and follows it with --follow.

use std::time::Duration;

use antiphon_transport::{ConnectArgs, ReconnectPolicy};
use anyhow::anyhow;
use tokio::time::timeout_at;

use super::shared_args::{JobArgs, Schedule};
use crate::client::{self, Client, Submission};
use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::follow::{Limit, RECONNECT_TIMEOUT, Remarks, Watching};
use crate::output::{self, Format};

/// How long a coordinator that is away is tried by default, in seconds, until it has accepted the job.
const UNTIL_ACCEPTED: u64 = 10;

/// Send a job to a coordinator
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon submit job.yaml --coordinator http://10.0.0.5:7070
  antiphon submit job.yaml --follow --timeout 3600
  antiphon submit job.yaml --id JOB --resume antiphon-runs/JOB")]
pub struct SubmitArgs {
    /// The job file
    #[command(flatten)]
    pub job: JobArgs,

    /// Whether encoders compute at the same time; overrides `schedule.mode` of the job
    #[arg(long, value_name = "MODE")]
    pub schedule: Option<Schedule>,

    /// The coordinator
    #[command(flatten)]
    pub connect: ConnectArgs,

    /// Id of the job [default: made from its name and the time]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// Resume from this checkpoint, or from the newest in this folder of a job; paths are on the coordinator's machine
    #[arg(long, value_name = "URL")]
    pub resume: Option<String>,

    /// Show the events of the job until it ends, and exit with its exit code; reconnects to a coordinator that restarts
    #[arg(long)]
    pub follow: bool,

    /// Seconds to retry a coordinator that cannot be reached, before exit code 3; 0 does not retry [default: 10 until it has the
    /// job, then 600]
    #[arg(long, value_name = "SECONDS")]
    pub reconnect_timeout: Option<u64>,

    /// Seconds until exit code 4; with --follow this includes the job itself [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Submits, and follows.
///
/// # Errors
/// An invalid job file, no coordinator, or a timeout.
pub async fn run(args: SubmitArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    let limit = args.timeout.and_then(Limit::from_now);
    let mut spec = args.job.load(&context.encoders)?;
    if let Some(schedule) = args.schedule {
        spec.schedule.mode = schedule.into();
    }
    let seconds = args.reconnect_timeout.unwrap_or(UNTIL_ACCEPTED);
    let client = Client::new(&args.connect.coordinator)?;
    let timeout = args.timeout.unwrap_or(u64::MAX).min(seconds);
    let mut remarks = Remarks { format, job: args.id.clone(), timeout };
    let request = client::request(&spec, args.id, args.resume);
    let policy = ReconnectPolicy::new(Duration::from_secs(seconds));
    let mut submission = Submission::new(client.clone(), request, policy);
    let accepted = match limit {
        None => Ok(submission.accepted(&mut remarks).await),
        Some(limit) => timeout_at(limit.ends, submission.accepted(&mut remarks)).await.map_err(|_| limit.seconds),
    };
    let job = match accepted {
        Ok(job) => job?,
        Err(seconds) => {
            let reason = submission.waits_for();
            return Err(anyhow!("the job is not submitted after {seconds} s: {reason}")).or_exit(Exit::TimedOut);
        }
    };
    if !args.follow {
        match format {
            Format::Json => output::json(&serde_json::json!({"event": "submitted", "job": job, "name": spec.name}))?,
            Format::Text => output::line(&format!("submitted {job}"))?,
        }
        return Ok(Exit::Success);
    }
    let reconnect_timeout = args.reconnect_timeout.unwrap_or(RECONNECT_TIMEOUT);
    let watching = Watching::new(client, &job, format, reconnect_timeout, limit);
    Ok(watching.until_over(&spec, 0).await?.into())
}
