//! Child processes of benches. Each computes on one thread, and some are bound to one core.

use crate::lab::child_process::{ChildProcess, Log, Setting};
use crate::lab::lifeline::Lifeline;

/// Starts `antiphon` with these arguments.
pub(super) fn start(name: &str, arguments: &[&str], core: Option<usize>) -> anyhow::Result<ChildProcess> {
    ChildProcess::spawn(&Setting {
        name: name.to_owned(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        environment: vec![("RAYON_NUM_THREADS", "1".to_owned())],
        core,
        lifeline: Lifeline::Input,
        log: Log::in_memory(),
    })
}

/// Starts a coordinator at this address, waits until it listens, and returns its URL.
pub(super) async fn coordinator(
    address: &str,
    arguments: &[&str],
    core: Option<usize>,
) -> anyhow::Result<(ChildProcess, String)> {
    let arguments = [&["coordinator", "--listen", address, "--format", "json"], arguments].concat();
    let mut coordinator = start("the coordinator", &arguments, core)?;
    let url = format!("http://{}", coordinator.address().await?);
    Ok((coordinator, url))
}
