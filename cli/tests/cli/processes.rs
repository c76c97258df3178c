//! Coordinator, workers and client as separate processes, and all the ways in which they end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{ChildStderr, Stdio};

use crate::support::process::{Client, Process, coordinator, in_time, listening, worker};
use crate::support::{antiphon, folder_with_job, json_lines, run_to_end};

#[test]
fn separate_processes_train_the_same_bits_as_one() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);
    let (_coordinator, url) = coordinator(folder.path());
    let _workers = ["audio", "image", "text"].map(|modality| worker(folder.path(), &url, modality));
    for _ in 0..2 {
        let last = run_to_end(folder.path(), &["submit", "job.yaml", "--coordinator", &url, "--follow"]);
        assert_eq!(last["digest"], whole["digest"]);
        assert_eq!(last["evaluation"], whole["evaluation"]);
    }
}

#[test]
fn a_coordinator_whose_log_is_not_read_serves_and_ends() {
    let folder = folder_with_job();
    let (coordinator, url, log) =
        listening(antiphon(folder.path(), &["coordinator", "--listen", "127.0.0.1:0", "--format", "json"]));
    drop(log);
    let _workers = ["audio", "image", "text"].map(|modality| worker(folder.path(), &url, modality));
    let arguments = ["submit", "job.yaml", "--coordinator", &url, "--follow", "--timeout", "60"];
    assert_eq!(run_to_end(folder.path(), &arguments)["turn"], 60);
    coordinator.signal("-TERM");
    assert_eq!(coordinator.ended(), Some(0));
}

/// A client that submits the job and follows it.
fn followed(folder: &Path, url: &str, more: &[&str]) -> Client {
    Client::start(folder, &[&["submit", "job.yaml", "--coordinator", url, "--follow"], more].concat())
}

#[test]
fn a_killed_worker_is_replaced_with_the_same_bits() {
    let folder = folder_with_job();
    let longer = ["--set", "schedule.turns=240", "--set", "checkpoints.every=50 turns"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &longer].concat());
    let (_coordinator, url) = coordinator(folder.path());
    let _others = ["audio", "image"].map(|modality| worker(folder.path(), &url, modality));
    let mut text = worker(folder.path(), &url, "text");
    let mut follower = followed(folder.path(), &url, &longer);
    follower.until_turn(70);
    text.0.kill().expect("it dies");
    let lost = follower.until("worker_lost");
    assert_eq!(lost["modality"], "text", "{lost}");
    let _text = worker(folder.path(), &url, "text");
    let ready = follower.until("worker_ready");
    assert!(ready["replayed"].as_u64().is_some_and(|steps| steps > 0), "{ready}");
    let last = follower.until("finished");
    assert_eq!(follower.process.ended(), Some(0), "{last}");
    assert_eq!((&last["digest"], &last["evaluation"]), (&whole["digest"], &whole["evaluation"]));
}

#[test]
fn a_worker_that_is_asked_to_stop_hands_over_its_slot() {
    let folder = folder_with_job();
    let longer = ["--set", "schedule.turns=240"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &longer].concat());
    let (_coordinator, url) = coordinator(folder.path());
    let _others = ["audio", "text"].map(|modality| worker(folder.path(), &url, modality));
    let image = worker(folder.path(), &url, "image");
    let idle = worker(folder.path(), &url, "image");
    let mut follower = followed(folder.path(), &url, &longer);
    for (turn, leaves) in [(40, image), (120, idle)] {
        follower.until_turn(turn);
        leaves.signal("-TERM");
        assert_eq!(leaves.ended(), Some(0), "it has nothing to complain of");
    }
    let _image = worker(folder.path(), &url, "image");
    let last = follower.until("finished");
    assert_eq!(follower.process.ended(), Some(0), "{last}");
    assert_eq!((&last["digest"], &last["evaluation"]), (&whole["digest"], &whole["evaluation"]));
}

/// A `text` worker that has registered, and the rest of its log.
fn talking_worker(folder: &Path, url: &str, more: &[&str]) -> (Process, BufReader<ChildStderr>) {
    let arguments = ["worker", "--modality", "text", "--coordinator", url];
    let mut program = antiphon(folder, &[&arguments, more].concat());
    let child = program.env("NO_COLOR", "1").stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut process = Process(child.expect("the worker starts"));
    let log = BufReader::new(process.0.stderr.take().expect("its log"));
    (process, until_said(log, "registered"))
}

/// The rest of a log after the line with this message.
fn until_said(mut log: BufReader<ChildStderr>, what: &'static str) -> BufReader<ChildStderr> {
    in_time(what, move || {
        let mut said = Vec::new();
        for line in log.by_ref().lines() {
            said.push(line.expect("a line"));
            if said.last().is_some_and(|line| line.contains(what)) {
                return log;
            }
        }
        panic!("it does not say `{what}`: {said:?}")
    })
}

/// The coordinator is stopped meanwhile, so that it cannot release the worker after a short step.
#[test]
fn a_worker_hands_its_turn_back_when_its_grace_is_over() {
    let folder = folder_with_job();
    // Whenever the worker receives the signal, it is working.
    let endless = ["--set", "schedule.turns=1000000"];
    let (coordinator, url) = coordinator(folder.path());
    let _others = ["audio", "image"].map(|modality| worker(folder.path(), &url, modality));
    let (leaves, log) = talking_worker(folder.path(), &url, &["--grace", "0"]);
    let mut follower = followed(folder.path(), &url, &endless);
    follower.until_turn(40);
    coordinator.stop();
    leaves.signal("-TERM");
    until_said(log, "the worker did not finish its step in time");
    assert_eq!(leaves.ended(), Some(0), "it has nothing to complain of");
    coordinator.signal("-CONT");
    assert_eq!(follower.until("worker_lost")["modality"], "text");
    let _text = worker(folder.path(), &url, "text");
    let ready = follower.until("worker_ready");
    assert!(ready["replayed"].as_u64().is_some_and(|steps| steps > 0), "{ready}");
    follower.until("step");
}

#[test]
fn a_worker_whose_coordinator_stays_away_says_so_and_ends() {
    let folder = folder_with_job();
    for (timeout, said) in [("0", "error: the coordinator ended the connection: "), ("1", "error: no coordinator at ")]
    {
        let (coordinator, url) = coordinator(folder.path());
        let (worker, log) = talking_worker(folder.path(), &url, &["--reconnect-timeout", timeout]);
        drop(coordinator);
        let last = in_time("its log ends", || log.lines().last().expect("it says why").expect("a line"));
        assert!(last.starts_with(said), "--reconnect-timeout {timeout}: {last}");
        assert_eq!(timeout == "1", last.contains(&format!("{url} after ")), "{last}");
        assert_eq!(worker.ended(), Some(3), "{last}");
    }
}

#[test]
fn a_worker_whose_name_is_taken_says_so_once_and_ends() {
    let folder = folder_with_job();
    let (_coordinator, url) = coordinator(folder.path());
    let (_first, _log) = talking_worker(folder.path(), &url, &["--name", "w"]);
    let arguments = ["worker", "--modality", "audio", "--coordinator", &url, "--name", "w"];
    let output = antiphon(folder.path(), &arguments).env("NO_COLOR", "1").output().expect("the worker starts");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    let message = "worker `w` is registered already; stop the other one, or start this one with another `--name`";
    assert_eq!(said.matches("registered already").count(), 1, "{said}");
    assert_eq!(said.lines().last(), Some(&*format!("error: {message}")), "{said}");
}

#[test]
fn a_job_without_workers_says_so_and_its_client_times_out() {
    let folder = folder_with_job();
    let (_coordinator, url) = coordinator(folder.path());
    let (code, lines) =
        json_lines(folder.path(), &["submit", "job.yaml", "--coordinator", &url, "--follow", "--timeout", "1"]);
    assert_eq!(code, Some(4), "{lines:?}");
    let submitted = &lines[0];
    assert_eq!(submitted["event"], "submitted");
    let error = lines.last().expect("a last line")["error"].as_str().expect("an error").to_owned();
    let job = submitted["job"].as_str().expect("an id");
    assert_eq!(
        error,
        format!(
            "job {job} has not ended after 1 s: waiting for 1 `audio` worker: 0 registered; waiting for 1 `image` \
             worker: 0 registered; waiting for 1 `text` worker: 0 registered; it keeps running"
        )
    );
}

#[test]
fn a_process_that_finds_no_coordinator_names_its_address() {
    let folder = folder_with_job();
    let nowhere = "http://127.0.0.1:9";
    let at_once = ["submit", "job.yaml", "--coordinator", nowhere, "--reconnect-timeout", "0"];
    let (code, lines) = json_lines(folder.path(), &at_once);
    assert_eq!(code, Some(3), "{lines:?}");
    let error = lines[0]["error"].as_str().expect("an error");
    assert!(error.starts_with("no coordinator at http://127.0.0.1:9: "), "{error}");
    assert!(error.contains("start one with `antiphon coordinator`"), "{error}");

    for address in ["https://127.0.0.1:9", "127.0.0.1:9"] {
        for arguments in [&["submit", "job.yaml"][..], &["worker", "--modality", "audio"]] {
            let arguments = [arguments, &["--coordinator", address]].concat();
            let (code, lines) = json_lines(folder.path(), &arguments);
            assert_eq!(code, Some(2), "{arguments:?}: {lines:?}");
        }
    }

    let arguments = ["worker", "--modality", "audio", "--coordinator", nowhere, "--connect-timeout", "0"];
    let mut faulty = antiphon(folder.path(), &arguments);
    let output = faulty.env("ANTIPHON_STORE_FAULTS", "bogus=1").output().expect("the worker starts");
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.code() == Some(2) && error.contains("ANTIPHON_STORE_FAULTS: `bogus=1`"), "{error}");
    let (code, lines) = json_lines(folder.path(), &arguments);
    assert_eq!(code, Some(3), "{lines:?}");
    assert!(lines[0]["error"].as_str().is_some_and(|e| e.starts_with("no coordinator at")), "{lines:?}");
}

#[test]
fn invalid_jobs_data_and_checkpoints_have_their_exit_codes() {
    let folder = folder_with_job();
    let path = folder.path();
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let taken = listener.local_addr().expect("it is bound").to_string();
    let cases: [(&[&str], i32, &str); 12] = [
        (&["run", "nowhere.yaml"], 2, "nowhere.yaml: No such file or directory (os error 2); correct the path"),
        (&["run", "job.yaml", "--set", "head.width=none"], 2, "--set head.width=none"),
        (&["run", "job.yaml", "--resume", "nowhere"], 2, "there is no complete checkpoint in `nowhere`"),
        (&["run", "job.yaml", "--resume"], 2, "leave out --resume to start one"),
        (&["check", "job.yaml", "--set", "seed=-1"], 2, "seed"),
        (&["coordinator", "--listen", "0.0.0.0:0"], 2, "--insecure-allow-remote"),
        (&["coordinator", "--listen", &taken], 2, "pass another --listen"),
        (&["run", "job.yaml", "--state", "job.yaml"], 2, "name a writable folder with --state"),
        (&["coordinator", "--state", "job.yaml/runs"], 2, "name another folder with --state"),
        (&["eval", "nowhere"], 2, "the folder does not exist; name the folder of a run"),
        (&["verify", "."], 2, "no folder in it holds a manifest.json; name the folder of a run"),
        (&["check", "nowhere.yaml"], 2, "No such file or directory (os error 2); correct the path, or give -"),
    ];
    for (arguments, expected, message) in cases {
        let (code, lines) = json_lines(path, arguments);
        let said = lines.last().map(ToString::to_string).unwrap_or_default();
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
    assert!(!path.join("antiphon-runs").exists(), "a run that never began left a folder");

    let data = ["--set", "modalities.audio.data={source: parquet, train: nothing-*.parquet}"];
    let (code, lines) = json_lines(path, &["run", "job.yaml", data[0], data[1]]);
    let last = lines.last().expect("a last line");
    assert_eq!((code, &last["state"]), (Some(1), &"failed".into()), "{last}");
    let reason = last["reason"].as_str().expect("a reason");
    assert!(reason.contains("`audio` worker") && reason.contains("nothing-*.parquet"), "{reason}");
}

#[test]
fn no_turns_write_the_initial_state() {
    let folder = folder_with_job();
    let none = ["--set", "schedule.turns=0"];
    let last = run_to_end(folder.path(), &["run", "job.yaml", none[0], none[1]]);
    assert_eq!(last["turn"], 0);
    assert!(last["checkpoint"].as_str().is_some_and(|url| url.ends_with("/00000000")), "{last}");
    let projector = Path::new(last["checkpoint"].as_str().expect("a folder")).join("projector.safetensors");
    assert!(projector.exists());
}
