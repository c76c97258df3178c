//! `antiphon coordinator` and `antiphon worker`: the parts as processes of their own.

use antiphon_coordinator::config::CoordinatorArgs;
use antiphon_coordinator::server::{self, ServeError};
use antiphon_worker::{WorkerArgs, WorkerError};
use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, OrExit as _};
use crate::signals::Interrupts;

/// Serves as coordinator until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot listen, or serving fails.
pub async fn coordinator(args: &CoordinatorArgs) -> anyhow::Result<Exit> {
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))
        .or_exit(Exit::Usage)?;
    match server::serve(args.config(), listener, cancelled_by_signal()?).await {
        Ok(()) => Ok(Exit::Success),
        Err(error @ ServeError::Remote { .. }) => Err(error).or_exit(Exit::Usage),
        Err(error) => Err(error).or_exit(Exit::Failed),
    }
}

/// Serves as worker until Ctrl-C, SIGTERM, or the coordinator goes away.
///
/// # Errors
/// The coordinator cannot be reached, or ends the connection.
pub async fn worker(args: WorkerArgs) -> anyhow::Result<Exit> {
    let config = args.complete(std::process::id()).or_exit(Exit::Usage)?;
    match antiphon_worker::run(config, cancelled_by_signal()?).await {
        Ok(()) => Ok(Exit::Success),
        Err(error) => {
            let exit = match &error {
                WorkerError::Address { .. } | WorkerError::Device(_) => Exit::Usage,
                WorkerError::Unreachable { .. } | WorkerError::Disconnected { .. } | WorkerError::Refused { .. } => {
                    Exit::Unreachable
                }
                WorkerError::Engine { .. } => Exit::Failed,
            };
            Err(error).or_exit(exit)
        }
    }
}

/// Set for a part that another process has started for itself: it ends with that process, whose end closes its standard input.
pub(crate) const WITH_PARENT: &str = "ANTIPHON_WITH_PARENT";

fn cancelled_by_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    if std::env::var_os(WITH_PARENT).is_some() {
        let cancel = shutdown.clone();
        std::thread::Builder::new().name("with-parent".to_owned()).spawn(move || {
            // Nobody writes to it: whatever this comes back with, the other end is closed.
            let _closed = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            cancel.cancel();
        })?;
    }
    let mut interrupts = Interrupts::listen()?;
    let cancel = shutdown.clone();
    tokio::spawn(async move {
        interrupts.next().await;
        cancel.cancel();
    });
    Ok(shutdown)
}
