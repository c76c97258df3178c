//! `antiphon coordinator` and `antiphon worker`: the servers.

use antiphon_coordinator::config::CoordinatorArgs;
use antiphon_coordinator::edge::server;
use antiphon_worker::WorkerArgs;

use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::lab::lifeline;

/// Serves as coordinator until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot listen, or serving fails.
pub async fn coordinator(args: &CoordinatorArgs, context: &Context) -> anyhow::Result<Exit> {
    let Err(error) = server::listen(args, context.stores, lifeline::shutdown()?).await else {
        return Ok(Exit::Success);
    };
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
pub async fn worker(args: WorkerArgs, context: &Context) -> anyhow::Result<Exit> {
    let config = args.complete(context.stores, context.encoders.clone()).or_exit(Exit::Usage)?;
    let Err(error) = antiphon_worker::run(config, lifeline::shutdown()?).await else { return Ok(Exit::Success) };
    tracing::error!(%error, "the worker ends");
    let exit = error.exit();
    Err(error).or_exit(exit)
}
