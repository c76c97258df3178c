//! `antiphon stop JOB`: asks a job to stop at its next turn boundary.

use std::time::Duration;

use antiphon_core::event::FinalState;
use antiphon_proto::v1::{JobState, JobStatus};
use antiphon_transport::ConnectArgs;
use tokio::time::sleep;

use super::jobs::Listed;
use crate::client::{Client, while_waiting};
use crate::exit::Exit;
use crate::follow::{Followed, RECONNECT_TIMEOUT, Remarks, Watching};
use crate::output::{self, Format};

/// How often the job is asked for whether it has stopped, before the answer is that it has not.
const POLLS: u32 = 10;
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Ask a job to stop at its next turn boundary
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Id of the job, as `antiphon submit` printed it and `antiphon jobs` lists it
    #[arg(value_name = "JOB")]
    pub job: String,

    /// The coordinator
    #[command(flatten)]
    pub connect: ConnectArgs,

    /// Do not wait for missing workers or a failing store: the newest checkpoint stays, and the turns after it are lost
    #[arg(long)]
    pub now: bool,

    /// Show the events of the job until it has stopped; the exit code is 0 if it stopped or had succeeded
    #[arg(long)]
    pub follow: bool,
}

/// Asks the job to stop, and follows it with --follow.
///
/// # Errors
/// No such job, or no coordinator.
pub async fn run(args: StopArgs, format: Format) -> anyhow::Result<Exit> {
    let client = Client::new(&args.connect.coordinator)?;
    let mut remarks = Remarks { format, job: Some(args.job.clone()), timeout: RECONNECT_TIMEOUT };
    let reason = format!("the coordinator at {} has not persisted the request to stop", args.connect.coordinator);
    let asked = while_waiting(&reason, client.stop(&args.job, args.now), &mut remarks).await?;
    if !args.follow || Listed::from(&asked).has_ended() {
        tell(&settled(&client, asked).await?, format)?;
        return Ok(Exit::Success);
    }
    let watching = Watching::new(client, &args.job, format, RECONNECT_TIMEOUT, None);
    let spec = watching.specification().await?;
    match watching.until_over(&spec, asked.last_event).await? {
        // As requested.
        Followed::ToItsEnd(FinalState::Stopped) => Ok(Exit::Success),
        followed => Ok(followed.into()),
    }
}

/// The status of the job once it has had a moment: a job that has nothing to finish has ended by then.
async fn settled(client: &Client, mut status: JobStatus) -> anyhow::Result<JobStatus> {
    for _ in 0..POLLS {
        if Listed::from(&status).has_ended() {
            break;
        }
        sleep(POLL_INTERVAL).await;
        (status, _) = client.job(&status.job).await?;
    }
    Ok(status)
}

fn tell(status: &JobStatus, format: Format) -> anyhow::Result<()> {
    let (job, listed) = (&status.job, Listed::from(status));
    match format {
        Format::Json => output::json(&listed)?,
        Format::Text if listed.has_ended() => output::line(&format!("{job} has ended: {}", listed.outcome()))?,
        Format::Text if status.state() == JobState::Waiting => {
            let reason = &status.reason;
            output::line(&format!("{job} has not stopped yet: {reason}; --now does not wait for workers"))?;
        }
        Format::Text => output::line(&format!("{job} stops at its next turn boundary, with a checkpoint"))?,
    }
    Ok(())
}
