//! A coordinator or a worker as a child process, which can be killed, stopped and resumed, and whose log is read.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_store::faults;
use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cores;
use super::lifeline::{self, Lifeline};

/// A free port of this machine.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// Time limit for a coordinator to listen.
const UNTIL_LISTENING: Duration = Duration::from_secs(60);
/// Time limit for reading the last lines of a process that has ended.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Number of log lines in memory.
const KEPT: usize = 5;

/// The settings of a child process.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// Name of the process in messages, as in `the coordinator`.
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The processor core that the process is bound to, if any.
    pub(crate) core: Option<usize>,
    pub(crate) lifeline: Lifeline,
    pub(crate) log: Log,
}

/// A running child process. It is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    name: String,
    child: Child,
    stopped: bool,
    log: Log,
    reading: JoinHandle<()>,
    /// Standard input of the child. However this process ends, the pipe closes and the child ends, too.
    _lifeline: Option<ChildStdin>,
}

/// The log of a process, and of the processes that replace it.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    /// The file that every line is appended to, if any.
    file: Option<PathBuf>,
    /// The last lines, for error messages.
    tail: Arc<Mutex<Vec<String>>>,
    /// The address of a coordinator, once it listens.
    address: watch::Sender<Option<String>>,
    /// Number of injected store faults.
    store_faults: Arc<AtomicU64>,
}

impl ChildProcess {
    /// Starts `antiphon`. With [`Lifeline::Killed`], it must be called on the main thread.
    ///
    /// # Errors
    /// The process cannot be started, or its log file cannot be written.
    pub(crate) fn spawn(setting: &Setting) -> anyhow::Result<Self> {
        let Setting { name, arguments, environment, core, lifeline, log } = setting;
        let mut command = lifeline::command(arguments, *lifeline)?;
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        let file = log.open()?;
        let mut child = cores::bound_to(*core, || command.spawn()).with_context(|| format!("cannot start {name}"))?;
        let stderr = child.stderr.take().with_context(|| format!("cannot read the log of {name}"))?;
        let reading = tokio::spawn(log.clone().read(stderr, file));
        // Standard input is taken from the child, because waiting for a child closes it.
        let lifeline = child.stdin.take();
        Ok(Self { name: name.clone(), child, stopped: false, log: log.clone(), reading, _lifeline: lifeline })
    }

    /// Waits until the process logs the address that it listens on, and returns the address.
    ///
    /// # Errors
    /// The process ends, or takes too long.
    pub(crate) async fn address(&mut self) -> anyhow::Result<String> {
        let mut listening = self.log.address.subscribe();
        tokio::select! {
            address = listening.wait_for(Option::is_some) => Ok(address?.clone().unwrap_or_default()),
            error = self.ended() => Err(error),
            () = tokio::time::sleep(UNTIL_LISTENING) => Err(anyhow!("{} did not listen in time", self.name)),
        }
    }

    /// The process id; None once the process has ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGKILL and waits until the process has exited.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Sends SIGSTOP.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP, true)
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT, false)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn signal(&mut self, signal: Signal, stopped: bool) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        // The process has ended; the next check reports that.
        let Some(pid) = pid else { return Ok(()) };
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))?;
        self.stopped = stopped;
        Ok(())
    }

    /// The exit status, if the process has ended.
    pub(crate) fn exit_status(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until the process ends, and returns the reason as an error: coordinators and workers do not end by
    /// themselves.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if !self.reading.is_finished() {
            // The timeout is needed because a grandchild may keep the log open.
            let _ = tokio::time::timeout(LAST_LINES, &mut self.reading).await;
        }
        anyhow!("{} ended ({how}): {}", self.name, self.log.full_message())
    }
}

impl Log {
    /// A log whose last lines are in memory only.
    pub(crate) fn in_memory() -> Self {
        let address = watch::Sender::new(None);
        Self { file: None, tail: Arc::default(), address, store_faults: Arc::default() }
    }

    /// A log that is also appended to a file.
    pub(crate) fn in_file(file: PathBuf) -> Self {
        Self { file: Some(file), ..Self::in_memory() }
    }

    /// Number of injected store faults since the process was first started.
    pub(crate) fn store_faults(&self) -> u64 {
        self.store_faults.load(Ordering::Relaxed)
    }

    fn open(&self) -> anyhow::Result<Option<File>> {
        let open = |file: &Path| OpenOptions::new().create(true).append(true).open(file);
        let opened =
            self.file.as_deref().map(|file| open(file).with_context(|| format!("cannot write {}", file.display())));
        opened.transpose()
    }

    async fn read(self, stderr: ChildStderr, mut file: Option<File>) {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(file) = &mut file {
                // A log that cannot be written does not end a run.
                let _ = writeln!(file, "{line}");
            }
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let fields = &entry["fields"];
            match fields["message"].as_str() {
                Some("the coordinator listens") => {
                    self.address.send_replace(fields["address"].as_str().map(str::to_owned));
                }
                Some(faults::MESSAGE) => {
                    self.store_faults.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
            self.keep(line);
        }
    }

    fn keep(&self, line: String) {
        let mut lines = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.remove(0);
        }
        lines.push(line);
    }

    fn full_message(&self) -> String {
        match &self.file {
            Some(file) => format!("see {}", file.display()),
            None => self.tail.lock().unwrap_or_else(PoisonError::into_inner).join("\n"),
        }
    }
}
