//! Child processes of this program end when their parent ends, even if it is killed.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Variable of the environment that is set for child processes.
const WITH_PARENT: &str = "ANTIPHON_WITH_PARENT";

/// The way in which a child process detects that its parent has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifeline {
    /// The child's standard input closes.
    Input,
    /// Additionally, Linux kills the child when the thread that started it ends, which must be the main thread. A
    /// stopped process does not notice that its input closes.
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

/// The command that starts this program as a child process. The caller must keep its standard input open and read its
/// log from standard error.
///
/// # Errors
/// The executable of this program is not found.
pub(crate) fn command(
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    lifeline: Lifeline,
) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find the executable of this program")?;
    let mut command = Command::new(program);
    command.args(arguments).env("RUST_LOG", "info").env(WITH_PARENT, lifeline.name()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// A token that is cancelled when this process must end: after Ctrl-C, SIGTERM, or, in a child process, the end of the
/// parent.
///
/// # Errors
/// Signal handlers cannot be installed, or no thread can be started.
pub(crate) fn shutdown() -> anyhow::Result<CancellationToken> {
    let shutdown = antiphon_process::cancelled_by_signal()?;
    let Some(given) = std::env::var_os(WITH_PARENT) else { return Ok(shutdown) };
    if given == Lifeline::Killed.name() {
        be_killed_with_parent()?;
    }
    let cancel = shutdown.clone();
    std::thread::Builder::new().name("with-parent".to_owned()).spawn(move || {
        // The parent never writes, so this returns only when the other end is closed.
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
