//! Coordinators, workers and clients as processes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::Value;
use tokio::time::Instant;

use super::antiphon;

/// The longest time that a test waits for one operation.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(kill.expect("kill starts").success());
    }

    /// Stops the process until SIGCONT, and waits until all of its threads are stopped.
    pub(crate) fn stop(&self) {
        let pid = Pid::from_child(&self.0);
        self.signal("-STOP");
        let stops =
            move || waitpid(Some(pid), WaitOptions::UNTRACED).expect("it is a child").expect("it was waited for");
        assert!(in_time("it stops", stops).1.stopped());
    }

    /// Waits for the end of the process, and returns its exit code.
    pub(crate) fn ended(mut self) -> Option<i32> {
        in_time("it ends", move || self.0.wait().expect("it is a child").code())
    }
}

/// Runs a blocking function, and fails after the timeout.
pub(crate) fn in_time<T: Send + 'static>(what: &str, wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, done) = mpsc::channel();
    std::thread::spawn(move || tell.send(wait()));
    done.recv_timeout(TEST_TIMEOUT).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// An address that no process listens on. The system does not assign its port to processes that ask for a free port.
pub(crate) fn address() -> SocketAddr {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let (first_port, ports) = (20_000, 8_000);
    let first = std::process::id().wrapping_mul(61);
    loop {
        let asked = first.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = first_port + u16::try_from(asked % ports).expect("it is small");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A coordinator on a free port, and its URL. Its log is read to the end.
pub(crate) fn coordinator(folder: &Path) -> (Process, String) {
    let (process, url, log) =
        listening(antiphon(folder, &["coordinator", "--listen", "127.0.0.1:0", "--format", "json"]));
    read_to_its_end(log);
    (process, url)
}

/// A coordinator with a JSON log that listens, its URL, and the rest of its log.
pub(crate) fn listening(program: Command) -> (Process, String, BufReader<ChildStderr>) {
    let (process, log_start, log) = log_start(program);
    let address = log_start.last().and_then(|line| line["fields"]["address"].as_str()).expect("an address");
    (process, format!("http://{address}"), log)
}

/// A coordinator that listens, the lines of its log so far, and the rest of its log.
pub(crate) fn log_start(mut program: Command) -> (Process, Vec<Value>, BufReader<ChildStderr>) {
    let child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut process = Process(child.expect("the coordinator starts"));
    let mut log = BufReader::new(process.0.stderr.take().expect("its log"));
    let (log_start, log) = in_time("it listens", move || {
        let mut log_start: Vec<Value> = Vec::new();
        for line in log.by_ref().lines() {
            log_start.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
            if log_start.last().is_some_and(|line| line["fields"]["message"] == "the coordinator listens") {
                return (log_start, log);
            }
        }
        panic!("it ended before it listened: {log_start:?}")
    });
    (process, log_start, log)
}

/// Reads a log, so that its process does not block on a full pipe.
pub(crate) fn read_to_its_end(log: BufReader<ChildStderr>) {
    std::thread::spawn(move || log.lines().for_each(drop));
}

/// A worker whose log is not read.
pub(crate) fn worker(folder: &Path, coordinator: &str, modality: &str) -> Process {
    let arguments = ["worker", "--modality", modality, "--coordinator", coordinator];
    Process(antiphon(folder, &arguments).stderr(Stdio::null()).spawn().expect("the worker starts"))
}

/// A client process and its output.
pub(crate) struct Client {
    pub(crate) process: Process,
    lines: mpsc::Receiver<String>,
}

impl Client {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let child =
            antiphon(folder, arguments).args(["--format", "json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the client starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().try_for_each(|line| tell.send(line.expect("a line"))));
        Self { process: Process(child), lines }
    }

    /// The next event of this kind.
    pub(crate) fn until(&mut self, kind: &str) -> Value {
        self.events_until(kind).pop().expect("it is among them")
    }

    /// The events up to the next one of this kind.
    pub(crate) fn events_until(&mut self, kind: &str) -> Vec<Value> {
        self.events_until_one(kind, |event| event["event"] == kind)
    }

    /// Waits for the `step` event of this turn.
    pub(crate) fn until_turn(&mut self, turn: u64) {
        self.events_until_one(&format!("step of turn {turn}"), |event| {
            event["event"] == "step" && event["turn"] == turn
        });
    }

    /// The events up to the next one that is `wanted`. Any number of others may precede it, within the timeout.
    pub(crate) fn events_until_one(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + TEST_TIMEOUT;
        let mut seen: Vec<Value> = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            seen.push(serde_json::from_str(&line).expect("JSON"));
            if seen.last().is_some_and(&wanted) {
                return seen;
            }
        }
        panic!("there is no `{what}`, to the end or in time: {seen:?}");
    }
}
