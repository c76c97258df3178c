//! `antiphon stop JOB`: asks a job to stop at its next turn boundary.

use std::time::Duration;

use antiphon_core::event::FinalState;
use antiphon_proto::v1::{JobState, JobStatus};
use tokio::time::sleep;

use super::jobs::Listed;
use crate::client::Client;
use crate::exit::Exit;
use crate::follow::Followed;
use crate::output::{self, Format};
use crate::remarks::Remarks;
use crate::watching::{RECONNECT_TIMEOUT, Watching};

/// How often it is looked whether a job has stopped, before it is told of as one that has not.
const MOMENTS: u32 = 10;
const MOMENT: Duration = Duration::from_millis(50);

/// Ask a job to stop at its next turn boundary, with a checkpoint
///
/// `antiphon submit JOB.yaml --resume CHECKPOINT` goes on with it. Its checkpoint needs a worker of every modality: where one is
/// gone, the job waits until another comes, unless told --now. Asking a job that is over, or asking again, changes nothing.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The job's id, as `antiphon submit` printed it and `antiphon jobs` lists it
    #[arg(value_name = "JOB")]
    pub job: String,

    /// Coordinator that has it
    #[arg(long, env = "ANTIPHON_COORDINATOR", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub coordinator: String,

    /// Do not wait for workers that are not there or do nothing, nor for a store that takes nothing: the newest checkpoint is what is left,
    /// and the turns since then are lost
    #[arg(long)]
    pub now: bool,

    /// Show the job's events until it has stopped; the exit code is then 0 if it has, or had succeeded before
    #[arg(long)]
    pub follow: bool,
}

/// Asks, and waits if told to.
///
/// # Errors
/// No such job, or no coordinator.
pub async fn run(args: StopArgs, format: Format) -> anyhow::Result<Exit> {
    let mut client = Client::new(&args.coordinator)?;
    let remarks = Remarks { format, job: Some(args.job.clone()), up_to: RECONNECT_TIMEOUT };
    let reason = format!("the coordinator at {} has not written down that the job is to stop", args.coordinator);
    let asked = remarks.until(&reason, client.stop(&args.job, args.now)).await?;
    if !args.follow || Listed::from(&asked).is_over() {
        tell(&heeded(&mut client, asked).await?, format)?;
        return Ok(Exit::Success);
    }
    let watching = Watching::new(client, &args.job, format, RECONNECT_TIMEOUT, None);
    let spec = watching.specification().await?;
    match watching.until_over(&spec, asked.last_event).await? {
        // That is what was asked for.
        Followed::ToItsEnd(FinalState::Stopped) => Ok(Exit::Success),
        followed => Ok(followed.into()),
    }
}

/// How the job is doing once it has had a moment: one that has nothing to finish is over by then.
async fn heeded(client: &mut Client, mut status: JobStatus) -> anyhow::Result<JobStatus> {
    for _ in 0..MOMENTS {
        if Listed::from(&status).is_over() {
            break;
        }
        sleep(MOMENT).await;
        (status, _) = client.job(&status.job).await?;
    }
    Ok(status)
}

fn tell(status: &JobStatus, format: Format) -> anyhow::Result<()> {
    let (job, listed) = (&status.job, Listed::from(status));
    match format {
        Format::Json => output::json(&listed)?,
        Format::Text if listed.is_over() => output::line(&format!("{job} is over: {}", listed.outcome()))?,
        Format::Text if status.state() == JobState::Waiting => {
            let reason = &status.reason;
            output::line(&format!("{job} is not stopped yet: {reason}; --now does not wait for workers"))?;
        }
        Format::Text => output::line(&format!("{job} stops at its next turn boundary, with a checkpoint"))?,
    }
    Ok(())
}
