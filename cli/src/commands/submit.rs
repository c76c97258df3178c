//! `antiphon submit JOB.yaml`: sends a job to a coordinator, and follows it if asked to.

use std::path::PathBuf;
use std::time::Duration;

use antiphon_core::spec::Override;
use anyhow::anyhow;
use tokio::time::timeout_at;

use super::check;
use super::run::Schedule;
use crate::client::Client;
use crate::exit::{Exit, OrExit as _};
use crate::output::{self, Format};
use crate::submission::{self, Submission};
use crate::watching::{Limit, RECONNECT_TIMEOUT, Watching};

/// Seconds that a coordinator is waited for by default, until it has the job.
const UNTIL_TAKEN: u64 = 10;

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

    /// Go on from this checkpoint, or from the newest of this job's folder; a path is one of the coordinator's machine
    #[arg(long, value_name = "URL")]
    pub resume: Option<String>,

    /// Show the job's events until it ends; its exit code is then the job's. A coordinator that is started again meanwhile is found again
    #[arg(long)]
    pub follow: bool,

    /// Seconds to try to reach a coordinator that is away, before exit code 3; 0 gives up at once [default: 10 until it has the job, 600
    /// from then on]
    #[arg(long, value_name = "SECONDS")]
    pub reconnect_timeout: Option<u64>,

    /// Seconds that all of this may take, with --follow the job too, before exit code 4 [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Submits, and follows.
///
/// # Errors
/// A bad job file, no coordinator, or a time limit.
pub async fn run(args: SubmitArgs, format: Format) -> anyhow::Result<Exit> {
    let limit = args.timeout.and_then(Limit::from_now);
    let (mut spec, _) = check::load(&args.job, &args.set).or_exit(Exit::Usage)?;
    if let Some(schedule) = args.schedule {
        spec.schedule.mode = schedule.into();
    }
    let patience = Duration::from_secs(args.reconnect_timeout.unwrap_or(UNTIL_TAKEN));
    let client = Client::new(&args.coordinator)?;
    let request = submission::request(&spec, args.id, args.resume);
    let mut submission = Submission::new(client.clone(), request, format, patience, args.timeout);
    let taken = match limit {
        None => Ok(submission.taken().await),
        Some(limit) => timeout_at(limit.ends, submission.taken()).await.map_err(|_| limit.seconds),
    };
    let job = match taken {
        Ok(taken) => taken?,
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
