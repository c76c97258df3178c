//! Coordinators as processes that are killed, told to end, or taken over from, and the client that follows a job through it.

mod support;

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use support::process::{PATIENCE, Process, address};
use support::{antiphon, folder_with_job, json_lines, run_to_end};

/// A coordinator that listens, and the lines of its log up to there; the others can be read.
fn coordinator(folder: &Path, address: &str) -> (Process, Vec<Value>, Lines<BufReader<ChildStderr>>) {
    coordinator_with(folder, address, |_| ())
}

/// The same, with something changed in how it is started.
fn coordinator_with(
    folder: &Path,
    address: &str,
    change: impl Fn(&mut Command),
) -> (Process, Vec<Value>, Lines<BufReader<ChildStderr>>) {
    let mut program = antiphon(folder, &["coordinator", "--listen", address, "--format", "json"]);
    change(&mut program);
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the coordinator starts");
    let mut log = BufReader::new(child.stderr.take().expect("its log")).lines();
    let mut begun = Vec::new();
    for line in log.by_ref() {
        begun.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
        if begun.last().is_some_and(|line: &Value| line["fields"]["message"] == "coordinator listens") {
            break;
        }
    }
    (Process(child), begun, log)
}

/// The term that a coordinator took.
fn term(log: &[Value]) -> &str {
    let opened = log.iter().find(|line| line["fields"]["message"] == "the journal is open");
    opened.expect("it opens its journal")["fields"]["term"].as_str().expect("a term")
}

fn drain(log: Lines<BufReader<ChildStderr>>) {
    std::thread::spawn(move || log.for_each(drop));
}

fn workers(folder: &Path, address: &str) -> [Process; 3] {
    ["audio", "image", "text"].map(|modality| {
        let arguments = ["worker", "--modality", modality, "--coordinator", &format!("http://{address}")];
        Process(antiphon(folder, &arguments).stderr(Stdio::null()).spawn().expect("the worker starts"))
    })
}

/// A client that submits the job and follows it.
struct Follower {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(folder: &Path, address: &str, more: &[&str]) -> Self {
        let url = format!("http://{address}");
        let arguments = ["submit", "job.yaml", "--id", "kept", "--coordinator", &url, "--follow", "--format", "json"];
        let mut child = antiphon(folder, &[&arguments, more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the client starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { process: Process(child), lines }
    }

    /// The lines up to the first event of this kind.
    fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut seen: Vec<Value> = Vec::new();
        for line in self.lines.by_ref() {
            seen.push(serde_json::from_str(&line.expect("a line")).expect("JSON"));
            if seen.last().is_some_and(|event| event["event"] == kind) {
                return seen;
            }
        }
        panic!("there is no `{kind}` in {seen:?}");
    }
}

/// The turns of the steps among events.
fn steps(events: &[Value]) -> Vec<u64> {
    let steps = events.iter().filter(|event| event["event"] == "step");
    steps.map(|step| step["turn"].as_u64().expect("a number")).collect()
}

#[test]
fn a_job_outlives_a_coordinator_that_is_killed_as_soon_as_it_has_it() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);
    let address = address().to_string();
    let (killed, begun, log) = coordinator(folder.path(), &address);
    drain(log);
    assert_eq!(term(&begun), "1");
    let mut follower = Follower::start(folder.path(), &address, &[]);
    follower.until("submitted");
    killed.signal("-KILL");
    assert_eq!(killed.ended(), None, "a signal has ended it");
    let unreachable = follower.until("unreachable").pop().expect("it says so");
    assert_eq!((&unreachable["job"], &unreachable["seconds"]), (&"kept".into(), &0.into()), "{unreachable}");

    let (_coordinator, begun, log) = coordinator(folder.path(), &address);
    drain(log);
    assert_eq!(term(&begun), "2");
    let again = follower.until("recovered");
    let recovered = again.last().expect("it goes on");
    assert_eq!((&recovered["term"], &recovered["turn"]), (&2.into(), &0.into()), "{recovered}");
    let _workers = workers(folder.path(), &address);
    let finished = follower.until("finished").pop().expect("it finishes");
    assert_eq!((&finished["digest"], &finished["evaluation"]), (&whole["digest"], &whole["evaluation"]));
    assert_eq!(follower.process.ended(), Some(0));
    let url = format!("http://{address}");
    let (code, lines) = json_lines(folder.path(), &["submit", "job.yaml", "--id", "kept", "--coordinator", &url]);
    assert_eq!((code, &lines[0]["error"]), (Some(2), &"there is a job `kept` already; choose another id".into()));
}

#[test]
fn a_coordinator_that_is_told_to_end_suspends_its_job_and_the_next_one_ends_it_in_the_same_bits() {
    let folder = folder_with_job();
    let longer = ["--set", "schedule.turns=150"];
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole", longer[0], longer[1]]);
    let address = address().to_string();
    let (ended, _, log) = coordinator(folder.path(), &address);
    drain(log);
    let first = workers(folder.path(), &address);
    let mut follower = Follower::start(folder.path(), &address, &longer);
    let mut events = follower.until("step");
    ended.signal("-TERM");
    events.extend(follower.until("suspended"));
    assert_eq!(ended.ended(), Some(0));
    drop(first);

    let (_coordinator, _, log) = coordinator(folder.path(), &address);
    drain(log);
    let _workers = workers(folder.path(), &address);
    let suspended = events.last().expect("it was suspended").clone();
    let again = follower.until("recovered");
    let recovered = again.last().expect("it goes on");
    assert_eq!((&recovered["turn"], &recovered["checkpoint"]), (&suspended["turn"], &suspended["checkpoint"]));
    events.extend(follower.until("finished"));
    let finished = events.last().expect("it finishes");
    assert_eq!((&finished["state"], &finished["digest"]), (&"succeeded".into(), &whole["digest"]), "{finished}");
    assert!(steps(&events).into_iter().eq(0..150), "each turn is told of once, in order: {:?}", steps(&events));
    assert_eq!(follower.process.ended(), Some(0));
}

#[test]
fn a_coordinator_that_is_told_to_end_does_not_wait_for_a_worker_that_is_gone() {
    let folder = folder_with_job();
    // The part of one that is gone would be waited for all this time.
    let longer = ["--set", "schedule.turns=400", "--set", "checkpoints.every=30 turns"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &longer].concat());
    let address = address().to_string();
    let slow = |program: &mut Command| {
        program.args(["--stop-within-seconds", "600"]);
    };
    let (ended, _, log) = coordinator_with(folder.path(), &address, slow);
    drain(log);
    let [audio, image, text] = workers(folder.path(), &address);
    let mut follower = Follower::start(folder.path(), &address, &longer);
    follower.until("checkpoint");
    drop(text);
    follower.until("worker_lost");
    ended.signal("-TERM");
    assert_eq!(ended.ended(), Some(0));
    let suspended = follower.until("suspended").pop().expect("it is suspended");
    assert!(suspended["checkpoint"].is_string(), "{suspended}");
    drop((audio, image));

    let (_coordinator, _, log) = coordinator(folder.path(), &address);
    drain(log);
    let _workers = workers(folder.path(), &address);
    let finished = follower.until("finished").pop().expect("it finishes");
    assert_eq!((&finished["state"], &finished["digest"]), (&"succeeded".into(), &whole["digest"]), "{finished}");
}

#[test]
fn of_two_coordinators_on_one_state_the_older_one_stops_and_says_why() {
    let folder = folder_with_job();
    let (older, begun, log) = coordinator(folder.path(), "127.0.0.1:0");
    assert_eq!(term(&begun), "1");
    let (_newer, begun, newer_log) = coordinator(folder.path(), "127.0.0.1:0");
    drain(newer_log);
    assert_eq!(term(&begun), "2");
    let lines: Vec<String> = log.map(|line| line.expect("a line")).collect();
    assert_eq!(older.ended(), Some(1));
    let state = folder.path().canonicalize().expect("it is there").join("antiphon-runs");
    let expected = format!("another coordinator (term 2) has taken over {}; this one stops", state.display());
    assert!(lines.iter().any(|line| line.contains(&expected)), "{lines:?}");
}

#[test]
fn whoever_has_no_patience_gives_up_at_once() {
    let folder = folder_with_job();
    let address = address().to_string();
    let (killed, _, log) = coordinator(folder.path(), &address);
    drain(log);
    let mut follower = Follower::start(folder.path(), &address, &["--reconnect-for", "0"]);
    follower.until("submitted");
    drop(killed);
    let error = follower.until("error").pop().expect("it says so");
    let expected = format!("no answer from the coordinator at http://{address}");
    assert!(error["error"].as_str().is_some_and(|error| error.starts_with(&expected)), "{error}");
    assert_eq!(follower.process.ended(), Some(3));
}

/// What `look` comes to see, looking a thousand times a second and not for ever.
fn awaited<T>(look: impl Fn() -> Option<T>) -> T {
    let (_held, pause) = mpsc::channel::<()>();
    for _ in 0..PATIENCE.as_millis() {
        if let Some(seen) = look() {
            return seen;
        }
        let _over = pause.recv_timeout(Duration::from_millis(1));
    }
    panic!("it was looked for in vain")
}

/// Files in the newest folder of checkpoints, and whether its manifest is among them.
fn newest(checkpoints: &Path) -> Option<(String, usize, bool)> {
    let folders = std::fs::read_dir(checkpoints).ok()?;
    let name = folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).max()?;
    let files = std::fs::read_dir(checkpoints.join(&name)).ok()?;
    let files: Vec<String> = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    // What is being written has a name of its own until it is whole.
    let whole = files.iter().filter(|file| !file.contains('#')).count();
    Some((name, whole, files.iter().any(|file| file == "manifest.json")))
}

/// Three of the head, two of each encoder, and the manifest: killed when so many of them are there, from none to all.
#[test]
fn a_coordinator_that_is_killed_anywhere_in_a_checkpoint_goes_on_from_the_newest_that_is_whole() {
    let folder = folder_with_job();
    let often = ["--set", "schedule.turns=400", "--set", "checkpoints.every=20 turns"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &often].concat());
    let checkpoints = folder.path().join("antiphon-runs/kept/checkpoints");
    let address = address().to_string();
    // Every request to the store takes its time, so that there is a middle of a checkpoint.
    let slow = |program: &mut Command| {
        program.env("ANTIPHON_STORE_FAULTS", "slow=1,slow_ms=40");
    };
    let (mut killed, _, log) = coordinator_with(folder.path(), &address, slow);
    drain(log);
    let _workers = workers(folder.path(), &address);
    let mut follower = Follower::start(folder.path(), &address, &often);
    follower.until("started");
    let mut points = std::collections::BTreeSet::new();
    for point in 0..10 {
        let before = newest(&checkpoints).map(|(name, ..)| name);
        let (files, is_whole) = awaited(|| match newest(&checkpoints) {
            Some((name, files, is_whole)) if Some(&name) != before.as_ref() && files >= point => {
                Some((files, is_whole))
            }
            _ => None,
        });
        killed.signal("-KILL");
        killed.ended();
        points.insert(files);
        let complete = |turn: &Value| {
            let turn = turn.as_u64().expect("a number");
            checkpoints.join(format!("{turn:08}/manifest.json")).exists()
        };
        let (next, _, log) = coordinator_with(folder.path(), &address, slow);
        drain(log);
        killed = next;
        let again = follower.until("recovered");
        let recovered = again.last().expect("it goes on");
        assert!(recovered["turn"] == 0 || complete(&recovered["turn"]), "{recovered}");
        let (name, ..) = newest(&checkpoints).expect("there is one");
        if is_whole {
            assert_eq!(Some(format!("{:08}", recovered["turn"])), Some(name), "what was whole is gone on from");
        }
        follower.until("started");
    }
    assert!(points.len() >= 6, "it was killed at different points: {points:?}");
    let finished = follower.until("finished").pop().expect("it finishes");
    assert_eq!((&finished["digest"], &finished["evaluation"]), (&whole["digest"], &whole["evaluation"]));
    for entry in std::fs::read_dir(&checkpoints).expect("there are checkpoints") {
        let folder = entry.expect("a folder").path();
        assert!(folder.join("manifest.json").exists(), "{} is left for ever", folder.display());
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 10, "{}", folder.display());
    }
}
