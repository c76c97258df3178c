//! A part of the system as a process of its own: this program, started again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin};

use super::cores;
use crate::commands::serve;

/// A free port of this machine.
pub(super) const ANY_PORT: &str = "127.0.0.1:0";

/// How long a coordinator may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines that are kept of what a part says.
const KEPT: usize = 5;

/// A running part. It ends with this value.
#[derive(Debug)]
pub(super) struct Part {
    name: String,
    child: Child,
    said: Said,
    /// Closed when this process ends, however it does: the part ends then too.
    _lifeline: Option<ChildStdin>,
}

#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Part {
    /// Starts `antiphon` with these arguments, with one thread that computes, on this core alone if there is one.
    pub(super) fn start(name: &str, arguments: &[&str], core: Option<usize>) -> anyhow::Result<Self> {
        let (part, stderr) = Self::spawn(name, arguments, core)?;
        tokio::spawn(part.said.clone().listen(stderr));
        Ok(part)
    }

    /// Starts a coordinator at this address, and waits until it listens. Its URL.
    pub(super) async fn coordinator(
        address: &str,
        arguments: &[&str],
        core: Option<usize>,
    ) -> anyhow::Result<(Self, String)> {
        let arguments = [&["coordinator", "--listen", address, "--format", "json"], arguments].concat();
        let (mut part, mut stderr) = Self::spawn("the coordinator", &arguments, core)?;
        let patience = tokio::time::Instant::now() + PATIENCE;
        while let Some(line) = tokio::time::timeout_at(patience, stderr.next_line())
            .await
            .context("the coordinator does not say that it listens")??
        {
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let fields = &entry["fields"];
            if let ("coordinator listens", Some(address)) =
                (fields["message"].as_str().unwrap_or_default(), fields["address"].as_str())
            {
                let url = format!("http://{address}");
                tokio::spawn(part.said.clone().listen(stderr));
                return Ok((part, url));
            }
            part.said.keep(line);
        }
        Err(part.ended().await)
    }

    fn spawn(
        name: &str,
        arguments: &[&str],
        core: Option<usize>,
    ) -> anyhow::Result<(Self, Lines<BufReader<ChildStderr>>)> {
        let mut command = serve::part(arguments)?;
        command.env("RAYON_NUM_THREADS", "1");
        let mut child = cores::held_to(core, || command.spawn()).with_context(|| format!("cannot start {name}"))?;
        let stderr = child.stderr.take().with_context(|| format!("cannot hear {name}"))?;
        // Out of the child's hands: whoever waits for a child closes its standard input.
        let lifeline = child.stdin.take();
        let part = Self { name: name.to_owned(), child, said: Said::default(), _lifeline: lifeline };
        Ok((part, BufReader::new(stderr).lines()))
    }

    /// The process's number; none once it has ended.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// SIGKILL; it is gone when this returns.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Waits for the part's end, which none reaches by itself; why it did.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        anyhow!("{} ended ({how}): {}", self.name, self.said.text())
    }
}

impl Said {
    async fn listen(self, mut stderr: Lines<BufReader<ChildStderr>>) {
        while let Ok(Some(line)) = stderr.next_line().await {
            self.keep(line);
        }
    }

    fn keep(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.remove(0);
        }
        lines.push(line);
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}
