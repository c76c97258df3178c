//! `antiphon submit JOB.yaml`: sends a job to a coordinator, and follows it if asked to.

use std::path::PathBuf;
use std::time::Duration;

use antiphon_core::spec::Override;
use antiphon_proto::v1::SubmitJobRequest;
use anyhow::anyhow;

use super::check;
use super::run::Schedule;
use crate::client::Client;
use crate::exit::{Exit, OrExit as _};
use crate::follow;
use crate::output::{self, Format};

/// Send a job to a coordinator
#[derive(Debug, clap::Args)]
pub struct SubmitArgs {
    /// The job file, YAML or JSON; `-` is standard input
    pub job: PathBuf,

    /// Set one field, as in `--set schedule.epochs=3`; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,

    /// Let all encoders compute at once, or one modality after the other to compare with; takes the place of the job's `schedule.mode`
    #[arg(long, value_name = "MODE")]
    pub schedule: Option<Schedule>,

    /// Coordinator to send it to
    #[arg(long, env = "ANTIPHON_COORDINATOR", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub coordinator: String,

    /// Id of the job; made of its name otherwise
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// Go on from this checkpoint, or from the newest of this job's folder
    #[arg(long, value_name = "URL")]
    pub resume: Option<String>,

    /// Show the job's events until it ends; its exit code is then the job's. A coordinator that is started again meanwhile is found again
    #[arg(long)]
    pub follow: bool,

    /// With --follow: seconds to try to reach a coordinator again that is gone, before exit code 3; 0 gives up at once
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub reconnect_for: u64,

    /// Seconds to wait for the coordinator, and with --follow for the job [default: 10, and no limit]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Submits, and follows.
///
/// # Errors
/// A bad job file, no coordinator, or a time limit.
pub async fn run(args: SubmitArgs, format: Format) -> anyhow::Result<Exit> {
    let (mut spec, _) = check::load(&args.job, &args.set).or_exit(Exit::Usage)?;
    if let Some(schedule) = args.schedule {
        spec.schedule.mode = schedule.into();
    }
    let timeout = args.timeout.map(Duration::from_secs);
    let mut client = Client::connect(&args.coordinator, timeout.unwrap_or(Duration::from_secs(10))).await?;
    let request = SubmitJobRequest { specification: spec.to_json(), job: args.id, resume: args.resume };
    let job = client.submit(request).await?;
    if !args.follow {
        match format {
            Format::Json => output::json(&serde_json::json!({"event": "submitted", "job": job, "name": spec.name}))?,
            Format::Text => output::line(&format!("submitted {job}"))?,
        }
        return Ok(Exit::Success);
    }
    let (mut watching, patience) = (client.clone(), Duration::from_secs(args.reconnect_for));
    let following = follow::follow(&mut watching, &job, &spec, format, follow::OnInterrupt::Leave, patience);
    let Some(limit) = timeout else { return following.await };
    match tokio::time::timeout(limit, following).await {
        Ok(exit) => exit,
        Err(_) => {
            let reason = client.reason(&job).await?;
            let seconds = limit.as_secs();
            Err(anyhow!("job {job} is not done after {seconds} s: {reason}; it goes on without being followed"))
                .or_exit(Exit::TimedOut)
        }
    }
}
