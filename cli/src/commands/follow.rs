//! `antiphon follow JOB`: shows the events of a submitted job until it ends.

use antiphon_transport::ConnectArgs;

use super::shared_args::resume_command;
use crate::client::Client;
use crate::exit::Exit;
use crate::follow::{Limit, RECONNECT_TIMEOUT, Watching};
use crate::output::Format;

/// Show the events of a job until it ends
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon follow digits-1
  antiphon follow digits-1 --coordinator http://10.0.0.5:7070
  antiphon follow digits-1 --format json --timeout 3600

`antiphon jobs` lists the ids. If the job was stopped or failed, the command that resumes it is printed last.

Exit codes: 0 the job succeeded, 1 it failed, 2 there is no such job, 3 cannot connect, 4 timed out, 130 the job was stopped, or Ctrl-C")]
pub struct FollowArgs {
    /// Id of the job, as `antiphon submit` printed it and `antiphon jobs` lists it
    #[arg(value_name = "JOB")]
    pub job: String,

    /// The coordinator
    #[command(flatten)]
    pub connect: ConnectArgs,

    /// Seconds to retry a coordinator that cannot be reached, before exit code 3; 0 does not retry
    #[arg(long, value_name = "SECONDS", default_value_t = RECONNECT_TIMEOUT)]
    pub reconnect_timeout: u64,

    /// Seconds to wait for the job to end, before exit code 4 [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// No such job, no coordinator, or a timeout.
pub async fn run(args: FollowArgs, format: Format) -> anyhow::Result<Exit> {
    let limit = args.timeout.and_then(Limit::from_now);
    let (client, resume) = (Client::new(&args.connect.coordinator)?, resume_command(&args.job, &args.connect));
    let watching = Watching::new(client, &args.job, format, args.reconnect_timeout, resume).until(limit);
    let spec = watching.specification().await?;
    Ok(watching.until_over(&spec, 0).await?.into())
}
