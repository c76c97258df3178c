//! `antiphon stop JOB`: asks a job to stop at its next turn boundary.

use std::io;
use std::time::Duration;

use antiphon_core::event::FinalState;
use antiphon_proto::v1::{JobState, JobStatus};
use antiphon_transport::ConnectArgs;
use tokio::time::sleep;

use super::jobs::Listed;
use super::shared_args::resume_command;
use crate::client::{Client, ClientError, while_waiting};
use crate::exit::Exit;
use crate::follow::{Followed, RECONNECT_TIMEOUT, Remarks, Watching};
use crate::output::{self, Format};

/// Number of times the job's status is requested before the command reports that the job has not stopped yet.
const POLLS: u32 = 10;
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Ask a job to stop at its next turn boundary
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon stop digits-1
  antiphon stop digits-1 --follow       until it has stopped
  antiphon stop digits-1 --now          without a new checkpoint
  antiphon stop digits-1 --coordinator http://10.0.0.5:7070")]
pub struct StopArgs {
    /// Id of the job, as `antiphon submit` printed it and `antiphon jobs` lists it
    #[arg(value_name = "JOB")]
    pub job: String,

    /// The coordinator
    #[command(flatten)]
    pub connect: ConnectArgs,

    /// Do not wait for missing workers or a failing store: the turns since the newest checkpoint are lost
    #[arg(long)]
    pub now: bool,

    /// Show the events of the job until it has stopped; the exit code is 0 if it stopped or had succeeded
    #[arg(long)]
    pub follow: bool,
}

/// Runs the command.
///
/// # Errors
/// No such job, or no coordinator.
pub async fn run(args: StopArgs, format: Format) -> anyhow::Result<Exit> {
    let client = Client::new(&args.connect.coordinator)?;
    let mut remarks = Remarks { format, job: Some(args.job.clone()), timeout: RECONNECT_TIMEOUT };
    let reason = format!("the coordinator at {} has not persisted the request to stop", args.connect.coordinator);
    let asked = while_waiting(&reason, client.stop(&args.job, args.now), &mut remarks).await;
    let asked = asked.map_err(ClientError::advised)?;
    let resume = resume_command(&args.job, &args.connect);
    if !args.follow || Listed::from(&asked).has_ended() {
        tell(&settled(&client, asked).await?, &resume, format)?;
        return Ok(Exit::Success);
    }
    let watching = Watching::new(client, &args.job, format, RECONNECT_TIMEOUT, resume);
    let spec = watching.specification().await?;
    match watching.until_over(&spec, asked.last_event).await? {
        // The job stopped, as requested.
        Followed::ToItsEnd(FinalState::Stopped) => Ok(Exit::Success),
        followed => Ok(followed.into()),
    }
}

/// The status of the job after a short wait, in which a job with nothing to finish ends.
async fn settled(client: &Client, mut status: JobStatus) -> Result<JobStatus, ClientError> {
    for _ in 0..POLLS {
        if Listed::from(&status).has_ended() {
            break;
        }
        sleep(POLL_INTERVAL).await;
        (status, _) = client.job(&status.job).await.map_err(ClientError::advised)?;
    }
    Ok(status)
}

/// Prints the status. `resume` is the command that resumes the job, without its last argument, the checkpoint.
fn tell(status: &JobStatus, resume: &str, format: Format) -> io::Result<()> {
    let (job, listed) = (&status.job, Listed::from(status));
    match format {
        Format::Json => output::json(&listed)?,
        Format::Text if listed.has_ended() => {
            output::line(&format!("{job} has ended: {}", listed.outcome()))?;
            if let Some(checkpoint) = listed.resumable() {
                output::line(&format!("resume with\n  {resume} {}", output::quoted(checkpoint)))?;
            }
        }
        Format::Text if status.state() == JobState::Waiting => {
            let reason = &status.reason;
            output::line(&format!("{job} has not stopped yet: {reason}; --now does not wait for workers"))?;
        }
        Format::Text => output::line(&format!("{job} stops at its next turn boundary, with a checkpoint"))?,
    }
    Ok(())
}
