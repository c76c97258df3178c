//! Child processes of this program end with their parent, however it ends.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Set for a process that another one has started for itself.
const WITH_PARENT: &str = "ANTIPHON_WITH_PARENT";

/// How a child process notices that its parent has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifeline {
    /// Its standard input closes.
    Input,
    /// As well, Linux kills it when the thread ends that started it, which is to be the main thread: a process that is stopped
    /// does not see its input close.
    Killed,
}

impl Lifeline {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Killed => "killed",
        }
    }
}

/// This program as a child process. Its standard input is to be kept open, and its log, on standard error, is to be read.
///
/// # Errors
/// The program's own file is not found.
pub(crate) fn command(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    lifeline: Lifeline,
) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.args(arguments).env("RUST_LOG", "info").env(WITH_PARENT, lifeline.name()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// Cancelled when this process is to end: by Ctrl-C, by SIGTERM, or because the parent that started it for itself has ended.
///
/// # Errors
/// Signals cannot be listened for, or no thread can be started.
pub(crate) fn shutdown() -> anyhow::Result<CancellationToken> {
    let shutdown = antiphon_process::cancelled_by_signal()?;
    let Some(given) = std::env::var_os(WITH_PARENT) else { return Ok(shutdown) };
    if given == Lifeline::Killed.name() {
        be_killed_with_parent()?;
    }
    let cancel = shutdown.clone();
    std::thread::Builder::new().name("with-parent".to_owned()).spawn(move || {
        // The parent never writes: whatever this returns, the other end is closed.
        let _closed = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        cancel.cancel();
    })?;
    Ok(shutdown)
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
