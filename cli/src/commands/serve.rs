//! `antiphon coordinator` and `antiphon worker`: the parts as processes of their own.

use std::ffi::OsStr;
use std::process::Stdio;

use antiphon_coordinator::config::CoordinatorArgs;
use antiphon_coordinator::edge::server;
use antiphon_store::storage::StoreOptions;
use antiphon_worker::WorkerArgs;
use anyhow::Context as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, OrExit as _};

/// Serves as coordinator until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot listen, or serving fails.
pub async fn coordinator(args: &CoordinatorArgs, stores: StoreOptions) -> anyhow::Result<Exit> {
    let Err(error) = server::listen(args, stores, asked_to_end()?).await else { return Ok(Exit::Success) };
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
pub async fn worker(args: WorkerArgs, stores: StoreOptions) -> anyhow::Result<Exit> {
    let config = args.complete(stores).or_exit(Exit::Usage)?;
    let Err(error) = antiphon_worker::run(config, asked_to_end()?).await else { return Ok(Exit::Success) };
    tracing::error!(%error, "the worker ends");
    let exit = error.exit();
    Err(error).or_exit(exit)
}

/// Set for a part that another process has started for itself: it ends with that process, whose end closes its standard input.
pub(crate) const WITH_PARENT: &str = "ANTIPHON_WITH_PARENT";

/// Its value for a part that is killed, on Linux, when the thread ends that started it: one that is stopped does not see its
/// standard input close.
pub(crate) const KILLED_WITH_PARENT: &str = "killed";

/// This program as a part of its own, which ends with this process: its standard input is to be kept, its log is to be read.
///
/// # Errors
/// The program's own file is not found.
pub(crate) fn part(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(arguments).env("RUST_LOG", "info").env(WITH_PARENT, "1").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

#[cfg(target_os = "linux")]
fn be_killed_with_parent() -> std::io::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

#[cfg(not(target_os = "linux"))]
fn be_killed_with_parent() -> std::io::Result<()> {
    Ok(())
}

/// Cancelled when this process is to end: it is told to, or whoever started it for itself has ended.
fn asked_to_end() -> anyhow::Result<CancellationToken> {
    let shutdown = antiphon_process::cancelled_by_signal()?;
    if let Some(how) = std::env::var_os(WITH_PARENT) {
        if how == KILLED_WITH_PARENT {
            be_killed_with_parent()?;
        }
        let cancel = shutdown.clone();
        std::thread::Builder::new().name("with-parent".to_owned()).spawn(move || {
            // Nobody writes to it: whatever this comes back with, the other end is closed.
            let _closed = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            cancel.cancel();
        })?;
    }
    Ok(shutdown)
}
