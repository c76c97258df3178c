//! `antiphon coordinator` and `antiphon worker`: the parts as processes of their own.

use antiphon_coordinator::config::CoordinatorArgs;
use antiphon_coordinator::server;
use antiphon_worker::WorkerArgs;

use crate::exit::{Exit, OrExit as _};
use crate::lab::lifeline;

/// Serves as coordinator until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot listen, or serving fails.
pub async fn coordinator(args: &CoordinatorArgs) -> anyhow::Result<Exit> {
    let Err(error) = server::listen(args, lifeline::shutdown()?).await else { return Ok(Exit::Success) };
    let exit = error.exit();
    if exit == Exit::Failed {
        tracing::error!(%error, "the coordinator ends");
    }
    Err(error).or_exit(exit)
}

/// Serves as worker until Ctrl-C, SIGTERM, or the coordinator goes away.
///
/// # Errors
/// The coordinator cannot be reached, or ends the connection.
pub async fn worker(args: WorkerArgs) -> anyhow::Result<Exit> {
    let config = args.complete().or_exit(Exit::Usage)?;
    let Err(error) = antiphon_worker::run(config, lifeline::shutdown()?).await else { return Ok(Exit::Success) };
    tracing::error!(%error, "the worker ends");
    let exit = error.exit();
    Err(error).or_exit(exit)
}
