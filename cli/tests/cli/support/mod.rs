//! Support for the tests of the program: a small job on generated data, and the program as a process.

pub(crate) mod process;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// A job with three modalities of different cost, missing modalities, dropout, both optimizers, and a smaller last
/// batch.
pub(crate) const SMALL_JOB: &str = "
name: small
seed: 11
data:
  source: synth
  kind: spoken-digits
  samples: {train: 150, validation: 40, test: 50}
  missing: 20%
modalities:
  audio:
    input: {kind: audio, sample_rate: 8000, seconds: 1 s, mels: 16, window: 256, hop: 256}
    encoder: {kind: cnn, channels: [4, 8]}
    optimizer: {kind: sgd, lr: 0.05, momentum: 0.9}
  image:
    input: {kind: image, height: 28, width: 28, channels: 1}
    encoder: {kind: cnn, channels: [4, 8], dropout: 0.1}
    optimizer: {kind: adamw, lr: 2e-3}
  text:
    input: {kind: text, max_tokens: 32}
    encoder: {kind: text, width: 16, layers: 1, heads: 2, dropout: 0.1}
    optimizer: {kind: adamw, lr: 2e-3, clip: 1.0}
labels: 10
head: {width: 16, optimizer: {kind: sgd, lr: 0.05, momentum: 0.9}}
schedule: {turns: 60, batch: 16}
evaluation: {every: 1 epoch, chunk: 16}
checkpoints: {every: end}
";

/// The command that starts the program in a folder.
pub(crate) fn antiphon(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.current_dir(folder).args(arguments).env_remove("RUST_LOG");
    command
}

/// Runs the program with `--format json`, and returns its exit code and output lines.
pub(crate) fn json_lines(folder: &Path, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = antiphon(folder, arguments).args(["--format", "json"]).output().expect("the program starts");
    (output.status.code(), parse_lines(&output))
}

/// The lines of standard output, each one JSON object.
pub(crate) fn parse_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("it prints UTF-8");
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<Value> = text.lines().map(parse).collect();
    hold_against_reference(&lines);
    lines
}

/// Checks that the reference describes the output. The output of benches is described in their help.
fn hold_against_reference(lines: &[Value]) {
    for line in lines.iter().filter(|line| line["event"].is_string() && line["event"] != "bench") {
        if let Err(reason) = antiphon::reference::check(line, &mut BTreeSet::new()) {
            panic!("correct the tables in core/src/reference/ or cli/src/reference/: {reason}");
        }
    }
}

/// The last line of a run that succeeded.
pub(crate) fn run_to_end(folder: &Path, arguments: &[&str]) -> Value {
    let (code, mut lines) = json_lines(folder, arguments);
    let last = lines.pop().expect("a run says something");
    assert_eq!((code, &last["event"], &last["state"]), (Some(0), &"finished".into(), &"succeeded".into()), "{last}");
    last
}

/// A folder that holds [`SMALL_JOB`] as `job.yaml`.
pub(crate) fn folder_with_job() -> tempfile::TempDir {
    folder_with(SMALL_JOB)
}

/// A folder that holds a job as `job.yaml`.
pub(crate) fn folder_with(job: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("job.yaml"), job).expect("a job file");
    folder
}
