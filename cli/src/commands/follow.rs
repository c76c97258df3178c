//! `antiphon follow JOB`: shows the events of a job that was submitted before, until it ends.

use crate::client::Client;
use crate::exit::Exit;
use crate::output::Format;
use crate::watching::{Limit, RECONNECT_TIMEOUT, Watching};

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
    #[arg(long, value_name = "SECONDS", default_value_t = RECONNECT_TIMEOUT)]
    pub reconnect_timeout: u64,

    /// Seconds that the job may take from now, before exit code 4 [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

/// Follows.
///
/// # Errors
/// No such job, no coordinator, or a time limit.
pub async fn run(args: FollowArgs, format: Format) -> anyhow::Result<Exit> {
    let limit = args.timeout.and_then(Limit::from_now);
    let watching = Watching::new(Client::new(&args.coordinator)?, &args.job, format, args.reconnect_timeout, limit);
    let spec = watching.specification().await?;
    Ok(watching.until_over(&spec, 0).await?.into())
}
