//! Coordinators that are killed, stopped or fenced, and a client that follows a job through this.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::ChildStderr;

use crate::support::process::{Client, Process, address, in_time, log_start, read_to_its_end, worker};
use crate::support::{antiphon, folder_with_job, json_lines, run_to_end};
use serde_json::Value;

/// A coordinator that listens, the lines of its log so far, and the rest of its log.
fn coordinator(folder: &Path, address: &str) -> (Process, Vec<Value>, BufReader<ChildStderr>) {
    log_start(antiphon(folder, &["coordinator", "--listen", address, "--format", "json"]))
}

/// The term of a coordinator, from its log.
fn term(log: &[Value]) -> &str {
    let opened = log.iter().find(|line| line["fields"]["message"] == "the coordinator has opened its journal");
    opened.expect("it opens its journal")["fields"]["term"].as_str().expect("a term")
}

fn workers(folder: &Path, address: &str) -> [Process; 3] {
    ["audio", "image", "text"].map(|modality| worker(folder, &format!("http://{address}"), modality))
}

/// A client that submits the job and follows it.
fn follower(folder: &Path, address: &str, more: &[&str]) -> Client {
    let url = format!("http://{address}");
    let arguments = ["submit", "job.yaml", "--id", "kept", "--coordinator", &url, "--follow"];
    Client::start(folder, &[&arguments, more].concat())
}

/// The turns of the steps among events.
fn steps(events: &[Value]) -> Vec<u64> {
    let steps = events.iter().filter(|event| event["event"] == "step");
    steps.map(|step| step["turn"].as_u64().expect("a number")).collect()
}

#[test]
fn a_job_outlives_a_coordinator_killed_right_after_submission() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);
    let address = address().to_string();
    let (killed, log_start, log) = coordinator(folder.path(), &address);
    read_to_its_end(log);
    assert_eq!(term(&log_start), "1");
    let mut follower = follower(folder.path(), &address, &[]);
    follower.until("submitted");
    killed.signal("-KILL");
    assert_eq!(killed.ended(), None, "a signal has ended it");
    let unreachable = follower.until("unreachable");
    assert_eq!((&unreachable["job"], &unreachable["seconds"]), (&"kept".into(), &0.into()), "{unreachable}");

    let (_coordinator, log_start, log) = coordinator(folder.path(), &address);
    read_to_its_end(log);
    assert_eq!(term(&log_start), "2");
    let recovered = follower.until("recovered");
    assert_eq!((&recovered["term"], &recovered["turn"]), (&2.into(), &0.into()), "{recovered}");
    let _workers = workers(folder.path(), &address);
    let finished = follower.until("finished");
    assert_eq!((&finished["digest"], &finished["evaluation"]), (&whole["digest"], &whole["evaluation"]));
    assert_eq!(follower.process.ended(), Some(0));
    let url = format!("http://{address}");
    let (code, lines) = json_lines(folder.path(), &["submit", "job.yaml", "--id", "kept", "--coordinator", &url]);
    assert_eq!((code, &lines[0]["error"]), (Some(2), &"there is a job `kept` already; choose another id".into()));
}

#[test]
fn a_suspended_job_resumes_at_the_next_coordinator() {
    let folder = folder_with_job();
    let longer = ["--set", "schedule.turns=150"];
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole", longer[0], longer[1]]);
    let address = address().to_string();
    let (ended, _, log) = coordinator(folder.path(), &address);
    read_to_its_end(log);
    let first = workers(folder.path(), &address);
    let mut follower = follower(folder.path(), &address, &longer);
    let mut events = follower.events_until("step");
    ended.signal("-TERM");
    events.extend(follower.events_until("suspended"));
    assert_eq!(ended.ended(), Some(0));
    drop(first);

    let (_coordinator, _, log) = coordinator(folder.path(), &address);
    read_to_its_end(log);
    let _workers = workers(folder.path(), &address);
    let suspended = events.last().expect("it was suspended").clone();
    let recovered = follower.until("recovered");
    assert_eq!((&recovered["turn"], &recovered["checkpoint"]), (&suspended["turn"], &suspended["checkpoint"]));
    events.extend(follower.events_until("finished"));
    let finished = events.last().expect("it finishes");
    assert_eq!((&finished["state"], &finished["digest"]), (&"succeeded".into(), &whole["digest"]), "{finished}");
    assert!(steps(&events).into_iter().eq(0..150), "each turn is told of once, in order: {:?}", steps(&events));
    assert_eq!(follower.process.ended(), Some(0));
}

#[test]
fn a_coordinator_that_shuts_down_waits_for_no_lost_worker() {
    let folder = folder_with_job();
    // The coordinator would wait this long for the files of the lost worker.
    let longer = ["--set", "schedule.turns=400", "--set", "checkpoints.every=30 turns"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &longer].concat());
    let address = address().to_string();
    let slow = ["coordinator", "--listen", &address, "--format", "json", "--stop-within-seconds", "600"];
    let (ended, _, log) = log_start(antiphon(folder.path(), &slow));
    read_to_its_end(log);
    let [audio, image, text] = workers(folder.path(), &address);
    let mut follower = follower(folder.path(), &address, &longer);
    follower.until("checkpoint");
    drop(text);
    follower.until("worker_lost");
    ended.signal("-TERM");
    assert_eq!(ended.ended(), Some(0));
    let suspended = follower.until("suspended");
    assert!(suspended["checkpoint"].is_string(), "{suspended}");
    drop((audio, image));

    let (_coordinator, _, log) = coordinator(folder.path(), &address);
    read_to_its_end(log);
    let _workers = workers(folder.path(), &address);
    let finished = follower.until("finished");
    assert_eq!((&finished["state"], &finished["digest"]), (&"succeeded".into(), &whole["digest"]), "{finished}");
}

#[test]
fn of_two_coordinators_on_one_state_the_older_one_is_fenced() {
    let folder = folder_with_job();
    let (older, log_start, log) = coordinator(folder.path(), "127.0.0.1:0");
    assert_eq!(term(&log_start), "1");
    let (_newer, log_start, newer_log) = coordinator(folder.path(), "127.0.0.1:0");
    read_to_its_end(newer_log);
    assert_eq!(term(&log_start), "2");
    let rest = || log.lines().map(|line| line.expect("a line")).collect::<Vec<String>>();
    let lines = in_time("its log ends", rest);
    assert_eq!(older.ended(), Some(1));
    let state = folder.path().canonicalize().expect("it is there").join("antiphon-runs");
    let expected = format!("another coordinator (term 2) has taken over {}; this one stops", state.display());
    assert!(lines.iter().any(|line| line.contains(&expected)), "{lines:?}");
}

#[test]
fn a_client_with_reconnect_timeout_0_does_not_retry() {
    let folder = folder_with_job();
    let address = address().to_string();
    let (killed, _, log) = coordinator(folder.path(), &address);
    read_to_its_end(log);
    let mut follower = follower(folder.path(), &address, &["--reconnect-timeout", "0"]);
    follower.until("submitted");
    drop(killed);
    let error = follower.until("error");
    let expected = format!("no coordinator answers at http://{address}");
    assert!(error["error"].as_str().is_some_and(|error| error.starts_with(&expected)), "{error}");
    assert_eq!(follower.process.ended(), Some(3));
}

/// Kills the coordinator during checkpoints in a folder, where files can be incomplete. `crash_points.rs` tests every
/// crash point in a bucket.
#[test]
fn a_coordinator_killed_while_it_writes_leaves_no_partial_files() {
    let folder = folder_with_job();
    let often = ["--set", "schedule.turns=160", "--set", "checkpoints.every=20 turns"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &often].concat());
    let address = address().to_string();
    // Every request to the store is slow, so that the kill can hit the middle of a checkpoint.
    let slow = || {
        let mut program = antiphon(folder.path(), &["coordinator", "--listen", &address, "--format", "json"]);
        program.env("ANTIPHON_STORE_FAULTS", "slow=1,slow_ms=40");
        let (process, _, log) = log_start(program);
        read_to_its_end(log);
        process
    };
    let mut coordinator = slow();
    let _workers = workers(folder.path(), &address);
    let mut follower = follower(folder.path(), &address, &often);
    let mut deaths = 0;
    let finished = loop {
        let wanted = |event: &Value| event["event"] == "finished" || deaths < 3 && event["event"] == "checkpoint";
        let next = follower.events_until_one("checkpoint", wanted).pop().expect("it is among them");
        if next["event"] == "finished" {
            break next;
        }
        // The next checkpoint has started, or starts soon.
        coordinator.signal("-KILL");
        coordinator.ended();
        deaths += 1;
        coordinator = slow();
    };
    assert_eq!((&finished["digest"], &finished["evaluation"]), (&whole["digest"], &whole["evaluation"]));
    assert!(deaths > 0, "it was killed");
    let checkpoints = folder.path().join("antiphon-runs/kept/checkpoints");
    for entry in std::fs::read_dir(&checkpoints).expect("there are checkpoints") {
        let folder = entry.expect("a folder").path();
        assert!(folder.join("manifest.json").exists(), "{} is left behind", folder.display());
        // Three files of the head, two of each encoder, and the manifest.
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 10, "{}", folder.display());
    }
}
