//! `antiphon stop JOB`: asks a job to stop at its next turn boundary.

use antiphon_proto::v1::{JobState, JobStatus};

use super::follow::{self, Watching};
use super::jobs::Listed;
use crate::client::Client;
use crate::exit::Exit;
use crate::output::{self, Format};

/// Ask a job to stop at its next turn boundary, with a checkpoint
///
/// `antiphon submit JOB.yaml --resume CHECKPOINT` goes on with it. Asking a job that is over changes nothing.
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// The job's id, as `antiphon submit` printed it and `antiphon jobs` lists it
    #[arg(value_name = "JOB")]
    pub job: String,

    /// Coordinator that has it
    #[arg(long, env = "ANTIPHON_COORDINATOR", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub coordinator: String,

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
    let status = client.stop(&args.job).await?;
    if !args.follow {
        tell(&status, format)?;
        return Ok(Exit::Success);
    }
    let (_, specification) = client.job(&args.job).await?;
    let watching = Watching { client, format, patience: follow::patience(None), limit: None };
    match watching.until_over(&args.job, &follow::understood(&specification)?).await? {
        // That is what was asked for.
        Exit::Interrupted => Ok(Exit::Success),
        exit => Ok(exit),
    }
}

fn tell(status: &JobStatus, format: Format) -> anyhow::Result<()> {
    let job = &status.job;
    match (format, status.state()) {
        (Format::Json, _) => output::json(&Listed::from(status))?,
        (Format::Text, JobState::Stopped | JobState::Succeeded | JobState::Failed) => {
            output::line(&format!("{job} is over: {}", Listed::from(status).outcome()))?;
        }
        (Format::Text, _) => output::line(&format!("{job} stops at its next turn boundary, with a checkpoint"))?,
    }
    Ok(())
}
