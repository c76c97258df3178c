//! `antiphon chaos` without faults, and the end of its processes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{antiphon, folder_with_job, json_lines};
use serde_json::Value;

/// A digest that no job has.
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The longest time that a test waits.
const LONG: Duration = Duration::from_secs(120);

/// A `chaos` process that is killed at the end of its test.
struct Chaos(Child);

impl Drop for Chaos {
    fn drop(&mut self) {
        // It may have exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a `chaos` whose job never ends, and waits for a line that matches.
fn endless(folder: &Path, arguments: &[&str], fits: impl Fn(&Value) -> bool) -> Chaos {
    let endless = ["chaos", "job.yaml", "--set", "schedule.turns=1000000", "--expect", NO_DIGEST, "--format", "json"];
    let child = antiphon(folder, &endless).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut chaos = Chaos(child.expect("it starts"));
    let lines = BufReader::new(chaos.0.stdout.take().expect("its output")).lines();
    let mut lines = lines.map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"));
    assert!(lines.any(|line: Value| fits(&line)), "it ended before");
    // It keeps printing.
    std::thread::spawn(move || lines.for_each(drop));
    chaos
}

fn ended(mut chaos: Chaos) -> ExitStatus {
    let (tell, ended) = mpsc::channel();
    std::thread::spawn(move || tell.send(chaos.0.wait().expect("it is a child")));
    ended.recv_timeout(LONG).expect("it ends")
}

/// The processes whose working folder is this one. Zombies have no working folder.
fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().expect("it is there");
    let all = std::fs::read_dir("/proc").expect("Linux").map(|entry| entry.expect("an entry").path());
    let here = all.filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder));
    here.map(|process| process.display().to_string()).collect()
}

/// Waits until all processes of a folder have ended, and returns whether they did in time.
fn all_end(folder: &Path) {
    let (tell, ended) = mpsc::channel();
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        while !processes(&folder).is_empty() {
            std::thread::yield_now();
        }
        tell.send(())
    });
    ended.recv_timeout(LONG).expect("no process outlives the one that started it");
}

fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().expect("an event")).collect()
}

#[test]
fn without_faults_all_runs_are_the_same_and_leave_no_files() {
    let folder = folder_with_job();
    let arguments = ["chaos", "job.yaml", "--faults", "0", "--runs", "2", "--kill", "worker,connection,coordinator"];
    let (code, lines) = json_lines(folder.path(), &arguments);
    assert_eq!(
        (code, events(&lines)),
        (Some(0), vec!["baseline", "run_started", "run_finished", "run_started", "run_finished"]),
        "{lines:?}"
    );
    for (line, seed) in [(&lines[2], 1), (&lines[4], 2)] {
        assert_eq!((&line["outcome"], &line["seed"]), (&"same".into(), &seed.into()), "{line}");
        assert_eq!((&line["digest"], &line["faults"]), (&lines[0]["digest"], &serde_json::json!({})), "{line}");
    }
    let kept = lines[1]["folder"].as_str().expect("a folder");
    assert!(!Path::new(kept).exists(), "a temporary folder goes when all is well");
    all_end(folder.path());
}

#[test]
fn every_outcome_of_a_run_is_printed_and_traced() {
    let folder = folder_with_job();
    // A server that never answers, so that the data never open.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let silent = listener.local_addr().expect("it is bound");
    let never = format!("modalities.audio.data={{source: parquet, train: \"http://{silent}/x.parquet\"}}");
    let cases: [(&[&str], i32, &str, &str); 4] = [
        (&[], 1, "different", ""),
        (&["--set", "modalities.audio.data={source: parquet, train: none-*.parquet}"], 1, "failed", "none-*.parquet"),
        (
            &["--set", "schedule.turns=1000000", "--timeout", "15s"],
            4,
            "too_slow",
            "raise --timeout or --every, or lower --faults",
        ),
        (&["--set", &never, "--hang-timeout", "2s"], 1, "hung", "is opening its data"),
    ];
    for (number, (arguments, exit, outcome, reason)) in cases.into_iter().enumerate() {
        let place = number.to_string();
        let all = ["chaos", "job.yaml", "--faults", "0", "--kill", "worker", "--folder", &place, "--expect", NO_DIGEST];
        let all = [&all[..], arguments].concat();
        let (code, lines) = json_lines(folder.path(), &all);
        let last = lines.last().expect("a last line");
        assert_eq!((code, &last["outcome"]), (Some(exit), &outcome.into()), "{lines:?}");
        assert!(last["reason"].as_str().unwrap_or_default().contains(reason), "{last}");
        assert_eq!(outcome == "too_slow", last["turns"] == 1_000_000 && last["turn"] != 0, "{last}");
        let run = Path::new(lines[0]["folder"].as_str().expect("a folder")).to_owned();
        let trace = std::fs::read_to_string(run.join("trace.jsonl")).expect("a trace");
        let traced: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(traced, lines, "the trace holds what was said");
        let log = |name: &str| std::fs::read_to_string(run.join(format!("logs/{name}.log"))).expect("a log");
        assert!(log("coordinator").contains("coordinator listens"));
        // Processes that are silent until the timeout have a log, too.
        ["worker-audio", "worker-image", "worker-text"].into_iter().for_each(|name| drop(log(name)));
    }
    all_end(folder.path());
}

#[test]
fn ctrl_c_ends_all_processes() {
    let folder = folder_with_job();
    let chaos = endless(folder.path(), &["--faults", "0"], |line| line["event"] == "run_started");
    let pid = chaos.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    assert_eq!(ended(chaos).code(), Some(130));
    all_end(folder.path());
}

#[test]
fn no_process_outlives_a_killed_chaos_even_if_it_is_stopped() {
    let folder = folder_with_job();
    let arguments = ["--kill", "coordinator", "--every", "200ms"];
    let chaos = endless(folder.path(), &arguments, |line| line["kind"] == "stop" && line["event"] == "fault");
    drop(chaos);
    all_end(folder.path());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = folder_with_job();
    for arguments in [["--kill", "everybody"], ["--every", "soon"], ["--set", "head.width=none"], ["--runs", "0"]] {
        let output = antiphon(folder.path(), &["chaos", "job.yaml"]).args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
