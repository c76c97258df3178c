//! The program treats a custom encoder like a built-in one. A job gives the same bits when it is repeated, on one and
//! two threads, stopped and resumed, and in separate processes. Its checkpoints can be verified, evaluated and used for
//! predictions.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A job that is small enough for a test, with dropout, missing modalities and a smaller last batch.
const SMALL: [&str; 4] = [
    "--set=data.samples={train: 200, validation: 0, test: 60}",
    "--set=schedule.epochs=2",
    "--set=schedule.batch=24",
    "--set=modalities.audio.encoder.options.channels=[16, 16]",
];

fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_custom-encoder"));
    command.current_dir(folder).args(arguments).env_remove("RUST_LOG");
    command
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("spoken-digits.yaml");
    std::fs::copy(job, folder.path().join("job.yaml")).expect("the folder is writable");
    folder
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The last line of a command that succeeds.
fn last(mut command: Command) -> Value {
    let output = command.args(["--format", "json"]).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}{}", String::from_utf8_lossy(&output.stdout));
    lines(&output).pop().expect("it says something")
}

fn run(folder: &Path, state: &str, more: &[&str]) -> Value {
    last(program(folder, &[&["run", "job.yaml", "--state", state], &SMALL[..], more].concat()))
}

/// A process that is killed when the test ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A coordinator, and its URL from its log.
fn coordinator(folder: &Path) -> (Server, String) {
    let mut command = program(folder, &["coordinator", "--listen", "127.0.0.1:0", "--format", "json"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut log = BufReader::new(child.stderr.take().expect("its log")).lines().map_while(Result::ok);
    let server = Server(child);
    let address = log.find_map(|line| {
        let line: Value = serde_json::from_str(&line).ok()?;
        line["fields"]["address"].as_str().map(str::to_owned)
    });
    // The rest of the log is read, too, so that the coordinator never blocks on it.
    std::thread::spawn(move || log.for_each(drop));
    (server, format!("http://{}", address.expect("it listens")))
}

fn worker(folder: &Path, url: &str, modality: &str) -> Server {
    let mut command = program(folder, &["worker", "--modality", modality, "--coordinator", url]);
    Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"))
}

#[test]
fn runs_have_the_same_bits_however_they_are_made() {
    let folder = folder();
    let whole = run(folder.path(), "whole", &[]);
    let digest = &whole["digest"];
    assert!(digest.is_string(), "{whole}");

    for threads in ["1", "2"] {
        let arguments = [&["run", "job.yaml", "--state", threads], &SMALL[..]].concat();
        let mut command = program(folder.path(), &arguments);
        command.env("RAYON_NUM_THREADS", threads);
        assert_eq!(&last(command)["digest"], digest, "{threads} threads");
    }

    run(folder.path(), "halves", &["--set", "schedule.epochs=1"]);
    let resumed = run(folder.path(), "halves", &["--resume"]);
    assert_eq!(&resumed["digest"], digest, "stopped and resumed");

    let (_coordinator, url) = coordinator(folder.path());
    let _workers = ["audio", "image"].map(|modality| worker(folder.path(), &url, modality));
    let submit = [&["submit", "job.yaml", "--coordinator", &url, "--follow"], &SMALL[..]].concat();
    assert_eq!(&last(program(folder.path(), &submit))["digest"], digest, "in separate processes");
}

#[test]
fn it_learns_and_every_command_reads_its_checkpoint() {
    let folder = folder();
    let samples = "--set=data.samples={train: 800, validation: 0, test: 100}";
    let arguments = ["run", "job.yaml", "--state", "state", samples, "--set=schedule.epochs=6"];
    let finished = last(program(folder.path(), &arguments));
    let at = finished["checkpoint"].as_str().expect("a checkpoint");
    let evaluated = last(program(folder.path(), &["eval", at]));
    let rule = evaluated["fusion"].as_str().expect("a rule");
    let accuracy = evaluated["fused"][rule]["accuracy"].as_f64();
    assert!(accuracy.is_some_and(|accuracy| accuracy > 0.45), "{evaluated}");
    last(program(folder.path(), &["verify", at]));
    let predicted = program(folder.path(), &["predict", at, "--format", "json"]).output().expect("it starts");
    assert!(predicted.status.success(), "{predicted:?}");
    assert_eq!(Some(lines(&predicted).len() as u64), evaluated["samples"].as_u64(), "one line for each sample");
}

#[test]
fn bad_options_fail_the_job_and_say_why() {
    let folder = folder();
    for (set, wanted) in [
        ("--set=modalities.audio.encoder.options.chanels=8", "`chanels` is not an option"),
        ("--set=modalities.audio.encoder.options.channels=[6]", "6 is not a multiple of 4"),
        ("--set=modalities.audio.encoder.kind=tnc", "did you mean `tcn`?"),
    ] {
        let output = program(folder.path(), &["run", "job.yaml", set]).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(wanted), "{said}");
    }
}
