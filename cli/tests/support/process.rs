//! A part of the system as a process of its own.

use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::antiphon;

/// Nothing that a process of a test does takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A process that does not outlive its test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub(crate) fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(kill.expect("kill starts").success());
    }

    /// Its exit code, once it has ended.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let (tell, ended) = mpsc::channel();
        std::thread::spawn(move || tell.send(self.0.wait().expect("it is a child").code()));
        ended.recv_timeout(PATIENCE).expect("it ends")
    }
}

/// An address that nobody listens on, for one process after the other: the system gives its port to nobody who asks for any.
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

/// A coordinator that has said where it listens, in a log of JSON; its URL, and the rest of its log.
pub(crate) fn listening(mut program: Command) -> (Process, String, BufReader<ChildStderr>) {
    let child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut process = Process(child.expect("the coordinator starts"));
    let mut log = BufReader::new(process.0.stderr.take().expect("its log"));
    let mut lines = log.by_ref().lines().map(|line| line.expect("a line"));
    let line = lines.find(|line| line.contains("coordinator listens")).expect("it listens");
    let line: Value = serde_json::from_str(&line).expect("JSON");
    let address = line["fields"]["address"].as_str().expect("an address");
    (process, format!("http://{address}"), log)
}

/// So that whoever writes it does not wait for a reader.
pub(crate) fn read_to_its_end(log: BufReader<ChildStderr>) {
    std::thread::spawn(move || log.lines().for_each(drop));
}

/// A worker that logs to nobody.
pub(crate) fn worker(folder: &Path, coordinator: &str, modality: &str) -> Process {
    let arguments = ["worker", "--modality", modality, "--coordinator", coordinator];
    Process(antiphon(folder, &arguments).stderr(Stdio::null()).spawn().expect("the worker starts"))
}

/// A client, and what it says.
pub(crate) struct Client {
    pub(crate) process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        let child =
            antiphon(folder, arguments).args(["--format", "json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the client starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { process: Process(child), lines }
    }

    /// The next event of this kind.
    pub(crate) fn until(&mut self, kind: &str) -> Value {
        let mut seen: Vec<Value> = Vec::new();
        for line in self.lines.by_ref() {
            seen.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
            if let Some(event) = seen.pop_if(|event| event["event"] == kind) {
                return event;
            }
        }
        panic!("there is no `{kind}` in {seen:?}");
    }
}
