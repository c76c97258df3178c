//! `antiphon follow JOB`: shows the events of a submitted job until it ends.

use antiphon_transport::ConnectArgs;

use crate::client::Client;
use crate::exit::Exit;
use crate::follow::{Limit, RECONNECT_TIMEOUT, Watching};
use crate::output::Format;

/// Show the events of a job until it ends
#[derive(Debug, clap::Args)]
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

/// Follows.
///
/// # Errors
/// No such job, no coordinator, or a timeout.
pub async fn run(args: FollowArgs, format: Format) -> anyhow::Result<Exit> {
    let limit = args.timeout.and_then(Limit::from_now);
    let watching =
        Watching::new(Client::new(&args.connect.coordinator)?, &args.job, format, args.reconnect_timeout, limit);
    let spec = watching.specification().await?;
    Ok(watching.until_over(&spec, 0).await?.into())
}
