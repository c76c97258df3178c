//! A job whose processes are killed, stopped and disconnected gives the same bits as its baseline run.

use std::path::Path;

use crate::support::process::{listening, read_to_its_end};
use crate::support::{antiphon, folder_with, json_lines, parse_lines, run_to_end};
use antiphon_testing_s3::{Faults, Server};
use serde_json::Value;

/// A job that is long enough for several faults, with occasional checkpoints.
const JOB: &str = "
name: pursued
seed: 3
data: {source: synth, kind: spoken-digits, samples: {train: 120, validation: 20, test: 20}, missing: 20%}
modalities:
  image:
    input: {kind: image, height: 28, width: 28, channels: 1}
    encoder: {kind: cnn, channels: [8, 16], dropout: 0.1}
    optimizer: {kind: adamw, lr: 2e-3}
  text:
    input: {kind: text, max_tokens: 32}
    encoder: {kind: text, width: 16, layers: 1, heads: 2, dropout: 0.1}
    optimizer: {kind: sgd, lr: 0.05, momentum: 0.9}
labels: 10
head: {width: 16, optimizer: {kind: sgd, lr: 0.05, momentum: 0.9}}
schedule: {turns: 300, batch: 16, lease_ttl: 1 s}
evaluation: {every: 5 epochs, chunk: 16}
checkpoints: {every: 40 turns, keep: 2}
";

/// Runs the job with faults of these kinds. Each run must have faults and give the digest of the job without faults.
fn gives_the_same(kill: &str, runs: usize, more: &[&str]) {
    let folder = folder_with(JOB);
    let digest = baseline(folder.path());
    let lines = pursued(folder.path(), &digest, &[], kill, runs, &[&["--folder", "runs"], more].concat());
    something_happens(kill, runs, &lines);
}

fn baseline(folder: &Path) -> String {
    run_to_end(folder, &["run", "job.yaml"])["digest"].as_str().expect("a digest").to_owned()
}

/// The output lines of several runs with these environment variables. Each run must give this digest.
fn pursued(
    folder: &Path,
    digest: &str,
    environment: &[(&str, String)],
    kill: &str,
    runs: usize,
    more: &[&str],
) -> Vec<Value> {
    let count = runs.to_string();
    let arguments = ["chaos", "job.yaml", "--runs", &count, "--timeout", "5min", "--expect", digest];
    let arguments = [&arguments[..], &["--kill", kill, "--format", "json"], more].concat();
    let output = antiphon(folder, &arguments).envs(environment.iter().map(|(name, value)| (name, value))).output();
    let output = output.expect("the program starts");
    let (code, lines) = (output.status.code(), parse_lines(&output));
    let ends = ends(&lines);
    let told = || {
        let logs =
            lines.iter().filter(|line| line["event"] == "run_started").filter_map(|line| line["folder"].as_str());
        logs.map(|folder| log(&Path::new(folder).join("logs/coordinator.log"))).collect::<String>()
    };
    assert!(ends.len() == runs && ends.iter().all(|end| end["outcome"] == "same"), "{ends:#?}\n{lines:?}\n{}", told());
    assert_eq!(code, Some(0));
    lines
}

fn ends(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|line| line["event"] == "run_finished").collect()
}

/// Checks that there were faults, and that at least half of those that started and ended hit a running job.
fn something_happens(kill: &str, runs: usize, lines: &[Value]) {
    let ends = ends(lines);
    let faults = ends.iter().flat_map(|end| end["faults"].as_object().expect("faults").values());
    assert!(faults.filter_map(Value::as_u64).sum::<u64>() > 0, "something happened: {ends:#?}");
    if kill != "store" {
        let met_at_work =
            lines.iter().filter(|line| line["event"] == "fault" && line["turn"].as_u64() > Some(0)).count();
        assert!(met_at_work * 2 >= runs, "{met_at_work} faults met jobs at work: {lines:?}");
    }
}

/// The end of a log.
fn log(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("\n{}:\n{}", file.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
}

#[test]
fn while_workers_are_killed_and_stopped() {
    gives_the_same("worker", 8, &["--every", "700ms", "--faults", "4"]);
}

#[test]
fn while_the_coordinator_is_killed_and_stopped() {
    gives_the_same("coordinator", 8, &["--every", "700ms", "--faults", "3"]);
}

#[test]
fn while_connections_are_cut_held_up_and_refused() {
    gives_the_same("connection", 3, &["--every", "700ms", "--faults", "6"]);
}

#[test]
fn while_the_store_fails() {
    gives_the_same("store", 2, &[]);
}

#[test]
fn while_everything_fails_at_once() {
    gives_the_same("worker,coordinator,store,connection", 5, &["--every", "1s", "--faults", "5"]);
}

/// Runs with one server, in parallel, because they mostly wait.
const SIDE_BY_SIDE: usize = 5;
/// Runs one after the other.
const RUNS: usize = 4;

#[test]
fn while_the_server_with_the_state_fails_or_breaks_off() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let slow_by = std::time::Duration::from_millis(20);
    let faults = Faults {
        seed: 5,
        refused: 0.05,
        lost: 0.04,
        reset: 0.04,
        truncated: 0.04,
        slow: 0.1,
        slow_by,
        slow_bodies: 0.1,
        bytes_per_second: 1 << 20,
    };
    let server = runtime.block_on(Server::start_with(faults));
    let folder = folder_with(JOB);
    let (path, environment, digest) = (folder.path(), server.environment(), baseline(folder.path()));
    let kill = "worker,coordinator";
    let runs = |at: usize| {
        let (seed, place, state) = ((1 + at * RUNS).to_string(), format!("runs-{at}"), state(at));
        let more = ["--every", "1s", "--faults", "3", "--seed", &seed, "--folder", &place, "--state", &state];
        pursued(path, &digest, &environment, kill, RUNS, &more)
    };
    let runs = &runs;
    let lines: Vec<Vec<Value>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SIDE_BY_SIDE).map(|at| scope.spawn(move || runs(at))).collect();
        threads.into_iter().map(|thread| thread.join().expect("all come to the same")).collect()
    });
    something_happens(kill, SIDE_BY_SIDE * RUNS, &lines.concat());
    assert!(server.requests() > 500, "the state is there");

    server.set_faults(Faults::NONE);
    let told = lines.iter().enumerate().flat_map(|(at, lines)| events(path, &state(at), &environment, lines));
    let told: Vec<Value> = told.collect();
    let some = |wanted: &dyn Fn(&Value) -> bool| told.iter().any(wanted);
    assert!(some(&|event| event["event"] == "recovered"), "a coordinator was killed at work");
    let replayed = |event: &Value| event["event"] == "worker_ready" && event["replayed"].as_u64() > Some(0);
    assert!(some(&replayed), "and so was a worker");
}

/// The state folders or URLs of the runs.
fn state(at: usize) -> String {
    format!("s3://bucket/runs-{at}")
}

/// The events of the ended jobs of some runs, from a coordinator that is started with their state.
fn events(folder: &Path, state: &str, environment: &[(&str, String)], lines: &[Value]) -> Vec<Value> {
    let arguments = ["coordinator", "--listen", "127.0.0.1:0", "--state", state, "--format", "json"];
    let mut program = antiphon(folder, &arguments);
    program.envs(environment.iter().map(|(name, value)| (name, value)));
    let (_coordinator, url, log) = listening(program);
    read_to_its_end(log);
    let jobs = lines.iter().filter(|line| line["event"] == "run_started").filter_map(|line| line["job"].as_str());
    jobs.flat_map(|job| json_lines(folder, &["follow", job, "--coordinator", &url]).1).collect()
}
