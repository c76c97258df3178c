//! A part of the system as a process that can be killed, stopped and started again.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use antiphon_store::faults;
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin};
use tokio::sync::watch;

use super::plan::{Victim, store_faults};
use crate::commands::serve;

/// How a process is started.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) victim: Victim,
    pub(super) arguments: Vec<String>,
    /// What it says goes there, after what it said before.
    pub(super) log: PathBuf,
    /// Seed of the faults of its store, if it has any.
    pub(super) store: Option<u64>,
}

/// A process, running or not. It ends with this value.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) setting: Setting,
    running: Option<Running>,
    starts: u64,
    heard: Heard,
}

#[derive(Debug)]
struct Running {
    child: Child,
    stopped: bool,
    /// Closed when this process ends, however it does: the child ends then too.
    _lifeline: Option<ChildStdin>,
}

/// What its log tells.
#[derive(Debug, Clone)]
struct Heard {
    /// Where it listens, once it does.
    address: watch::Sender<Option<String>>,
    /// Requests to its store that failed on purpose.
    store_faults: Arc<AtomicU64>,
}

impl Process {
    /// Starts it. To be called on the main thread, with whose end the child ends even where it is stopped.
    pub(super) fn start(setting: Setting) -> anyhow::Result<Self> {
        let heard = Heard { address: watch::Sender::new(None), store_faults: Arc::default() };
        let mut process = Self { setting, running: None, starts: 0, heard };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it if it is not running. To be called on the main thread.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let Setting { victim, arguments, log, store } = &self.setting;
        let mut command = serve::part(arguments)?;
        command.env(serve::WITH_PARENT, serve::KILLED_WITH_PARENT);
        if let Some(seed) = store {
            command.env(faults::VARIABLE, store_faults(*seed, victim, self.starts).to_string());
        }
        let log = OpenOptions::new().create(true).append(true).open(log);
        let log = log.with_context(|| format!("cannot write {}", self.setting.log.display()))?;
        let mut child = command.spawn().with_context(|| format!("cannot start the {victim}"))?;
        let stderr = child.stderr.take().with_context(|| format!("cannot hear the {victim}"))?;
        tokio::spawn(self.heard.clone().listen(stderr, log));
        // Out of the child's hands: whoever waits for a child closes its standard input.
        let lifeline = child.stdin.take();
        self.running = Some(Running { child, stopped: false, _lifeline: lifeline });
        self.starts += 1;
        Ok(())
    }

    /// Waits until it says where it listens.
    pub(super) async fn address(&self) -> anyhow::Result<String> {
        let mut address = self.heard.address.subscribe();
        let address = address.wait_for(Option::is_some).await?.clone();
        Ok(address.unwrap_or_default())
    }

    /// Whether it is there and computes.
    pub(super) fn is_up(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.stopped)
    }

    /// SIGKILL; it is gone when this returns.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            running.child.kill().await.with_context(|| format!("cannot kill the {}", self.setting.victim))?;
        }
        Ok(())
    }

    /// SIGSTOP.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP, true)
    }

    /// SIGCONT.
    pub(super) fn go_on(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT, false)
    }

    fn signal(&mut self, signal: Signal, stopped: bool) -> anyhow::Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        let pid = running.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        // None once it has ended by itself, which is found out in a moment.
        let Some(pid) = pid else { return Ok(()) };
        kill_process(pid, signal).with_context(|| format!("cannot signal the {}", self.setting.victim))?;
        running.stopped = stopped;
        Ok(())
    }

    /// How it ended, if it has since the last time, and not by our doing.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let ended = running.child.try_wait()?;
        if ended.is_some() {
            self.running = None;
        }
        Ok(ended)
    }

    /// Requests to its store that failed on purpose, since it was first started.
    pub(super) fn store_faults(&self) -> u64 {
        self.heard.store_faults.load(Ordering::Relaxed)
    }
}

impl Heard {
    async fn listen(self, stderr: ChildStderr, mut log: File) {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            // A log that cannot be written is no reason to end a run.
            let _ = writeln!(log, "{line}");
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let fields = &entry["fields"];
            match fields["message"].as_str() {
                Some("coordinator listens") => {
                    self.address.send_replace(fields["address"].as_str().map(str::to_owned));
                }
                Some(faults::MESSAGE) => {
                    self.store_faults.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
    }
}
