//! A job whose processes are killed, stopped and cut off comes to the same bits as one that is left in peace.

mod support;

use std::path::Path;

use antiphon_testing_s3::{Faults, Server};
use serde_json::Value;
use support::{antiphon, folder_with, parse_lines, run_to_end};

/// Long enough for several faults; with a checkpoint now and then.
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

/// So many runs with faults of these kinds; each comes to the digest of the job in peace, after some faults at least.
fn comes_to_the_same(kill: &str, runs: usize, more: &[&str]) {
    comes_to_the_same_in(&[], kill, runs, more);
}

/// The same, with these variables in the environment.
fn comes_to_the_same_in(environment: &[(&str, String)], kill: &str, runs: usize, more: &[&str]) {
    let folder = folder_with(JOB);
    let digest = run_to_end(folder.path(), &["run", "job.yaml"])["digest"].as_str().expect("a digest").to_owned();
    let count = runs.to_string();
    let arguments =
        ["chaos", "job.yaml", "--runs", &count, "--timeout", "5min", "--folder", "runs", "--expect", &digest];
    let arguments = [&arguments[..], &["--kill", kill, "--format", "json"], more].concat();
    let output =
        antiphon(folder.path(), &arguments).envs(environment.iter().map(|(name, value)| (name, value))).output();
    let output = output.expect("the program starts");
    let (code, lines) = (output.status.code(), parse_lines(&output));
    let ends: Vec<&Value> = lines.iter().filter(|line| line["event"] == "ended").collect();
    let told = || {
        let logs = lines.iter().filter(|line| line["event"] == "began").filter_map(|line| line["folder"].as_str());
        logs.map(|folder| log(&Path::new(folder).join("logs/coordinator.log"))).collect::<String>()
    };
    assert!(ends.len() == runs && ends.iter().all(|end| end["outcome"] == "same"), "{ends:#?}\n{lines:?}\n{}", told());
    assert_eq!(code, Some(0));
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
    comes_to_the_same("worker", 8, &["--every", "700ms", "--faults", "4"]);
}

#[test]
fn while_the_coordinator_is_killed_and_stopped() {
    comes_to_the_same("coordinator", 8, &["--every", "700ms", "--faults", "3"]);
}

#[test]
fn while_connections_are_cut_held_up_and_refused() {
    comes_to_the_same("connection", 3, &["--every", "700ms", "--faults", "6"]);
}

#[test]
fn while_the_store_fails() {
    comes_to_the_same("store", 2, &[]);
}

#[test]
fn while_everything_fails_at_once() {
    comes_to_the_same("worker,coordinator,store,connection", 5, &["--every", "1s", "--faults", "5"]);
}

#[test]
fn while_a_server_that_holds_the_state_answers_with_errors_or_breaks_off() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let slow_by = std::time::Duration::from_millis(20);
    let faults = Faults {
        seed: 5,
        refused: 0.05,
        lost: 0.04,
        reset: 0.04,
        cut: 0.04,
        slow: 0.1,
        slow_by,
        slow_bodies: 0.1,
        bytes_per_second: 1 << 20,
    };
    let server = runtime.block_on(Server::start_with(faults));
    let more = ["--every", "1s", "--faults", "4", "--state", "s3://bucket/runs"];
    comes_to_the_same_in(&server.environment(), "worker,coordinator", 4, &more);
    assert!(server.requests() > 500, "the state is there");
}
