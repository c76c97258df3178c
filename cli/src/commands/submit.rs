//! `antiphon submit JOB.yaml`: sends a job to a coordinator, and follows it with --follow.

use std::time::Duration;

use antiphon_core::ids::{BadName, JobId};
use antiphon_core::spec::ScheduleMode;
use antiphon_transport::{ConnectArgs, ReconnectPolicy};
use anyhow::anyhow;
use tokio::time::timeout_at;

use super::shared_args::{JobArgs, Schedule, resume_command, typed_coordinator};
use crate::client::{self, Client, Submission};
use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::follow::{Limit, RECONNECT_TIMEOUT, Remarks, Watching};
use crate::output::{self, Format};

/// Default of --reconnect-timeout in seconds, until the coordinator has accepted the job.
const UNTIL_ACCEPTED: u64 = 10;

/// Send a job to a coordinator
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon submit job.yaml --coordinator http://10.0.0.5:7070
  antiphon submit job.yaml --follow --timeout 3600
  antiphon submit job.yaml --id digits-2 --resume antiphon-runs/digits-1

Without --follow the command ends once the coordinator has persisted the job. `antiphon follow` shows its events, `antiphon jobs` its \
state, and `antiphon stop` stops it. An id is taken while the coordinator retains the job, so a job that resumes gets another id.")]
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

    /// Id of the job, unique at the coordinator [default: its name and 8 hexadecimal digits]
    #[arg(long, value_name = "ID", value_parser = job_id)]
    pub id: Option<JobId>,

    /// Resume from a checkpoint: folder or URL of the checkpoint, or of a run for its newest checkpoint; paths are on
    /// the coordinator's machine
    #[arg(long, value_name = "CHECKPOINT")]
    pub resume: Option<String>,

    /// Show the events of the job until it ends, and exit with its exit code; reconnects to a coordinator that restarts
    #[arg(long)]
    pub follow: bool,

    /// Seconds to retry a coordinator that cannot be reached, before exit code 3; 0 does not retry [default: 10 until
    /// the job is accepted, then 600]
    #[arg(long, value_name = "SECONDS")]
    pub reconnect_timeout: Option<u64>,

    /// Seconds until exit code 4; with --follow this includes the job itself [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

fn job_id(text: &str) -> Result<JobId, BadName> {
    JobId::try_from(text)
}

/// Runs the command.
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
    let again = args.resume_command();
    let mut remarks = Remarks { format, job: args.id.as_ref().map(ToString::to_string), timeout };
    let request = client::request(&spec, args.id.map(String::from), args.resume);
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
            return Err(anyhow!("the job was not submitted within {seconds} s: {reason}")).or_exit(Exit::TimedOut);
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
    let resume = again.unwrap_or_else(|| resume_command(&job, &args.connect));
    let watching = Watching::new(client, &job, format, reconnect_timeout, resume).until(limit);
    Ok(watching.until_over(&spec, 0).await?.into())
}

impl SubmitArgs {
    /// The command that resubmits the job, without the URL of the checkpoint that must follow. None if the job file
    /// cannot be reread.
    fn resume_command(&self) -> Option<String> {
        if self.job.is_standard_input() {
            return None;
        }
        let schedule = self.schedule.map(|schedule| format!(" --schedule {}", ScheduleMode::from(schedule).as_str()));
        let (job, schedule) = (self.job.typed(), schedule.unwrap_or_default());
        let (program, coordinator) = (output::program(), typed_coordinator(&self.connect));
        Some(format!("{program} submit {job}{schedule}{coordinator} --follow --resume"))
    }
}
