//! Coordinator, workers and client as processes of their own, and every way in which they end.

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;
use support::process::{Process, coordinator, listening, worker};
use support::{antiphon, folder_with_job, json_lines, run_to_end};

#[test]
fn separate_processes_train_the_same_bits_as_one_and_serve_one_job_after_the_other() {
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
fn a_coordinator_whose_log_nobody_reads_serves_and_ends_like_any_other() {
    let folder = folder_with_job();
    let (mut coordinator, url, log) =
        listening(antiphon(folder.path(), &["coordinator", "--listen", "127.0.0.1:0", "--format", "json"]));
    drop(log);
    let _workers = ["audio", "image", "text"].map(|modality| worker(folder.path(), &url, modality));
    let arguments = ["submit", "job.yaml", "--coordinator", &url, "--follow", "--timeout", "60"];
    assert_eq!(run_to_end(folder.path(), &arguments)["turn"], 60);
    let pid = coordinator.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    let (tell, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(coordinator.0.wait().expect("it is a child").code()));
    assert_eq!(ended.recv_timeout(std::time::Duration::from_secs(60)), Ok(Some(0)), "it ends");
}

/// A client that submits the job and follows it, and its lines as they come.
fn followed(folder: &Path, url: &str, more: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let arguments = ["submit", "job.yaml", "--coordinator", url, "--follow", "--format", "json"];
    let client = antiphon(folder, &arguments).args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut client = client.expect("the client starts");
    let lines = BufReader::new(client.stdout.take().expect("its output")).lines().map(|line| line.expect("a line"));
    (client, lines)
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_the_bits_are_the_same() {
    let folder = folder_with_job();
    let longer = ["--set", "schedule.turns=240", "--set", "checkpoints.every=50 turns"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &longer].concat());
    let (_coordinator, url) = coordinator(folder.path());
    let _others = ["audio", "image"].map(|modality| worker(folder.path(), &url, modality));
    let mut text = worker(folder.path(), &url, "text");
    let (mut submit, mut lines) = followed(folder.path(), &url, &longer);
    lines.find(|line| line.contains(r#""turn":70,"#)).expect("a step");
    text.0.kill().expect("it dies");
    let lost = lines.find(|line| line.contains(r#""event":"worker_lost""#)).expect("it is missed");
    assert!(lost.contains(r#""modality":"text""#), "{lost}");
    let _text = worker(folder.path(), &url, "text");
    let ready = lines.find(|line| line.contains(r#""event":"worker_ready""#)).expect("it is replaced");
    let ready: Value = serde_json::from_str(&ready).expect("JSON");
    assert!(ready["replayed"].as_u64().is_some_and(|steps| steps > 0), "{ready}");
    let last: Value = serde_json::from_str(&lines.last().expect("a last line")).expect("JSON");
    assert_eq!(submit.wait().expect("it ends").code(), Some(0), "{last}");
    assert_eq!((&last["digest"], &last["evaluation"]), (&whole["digest"], &whole["evaluation"]));
}

/// Asks a process to end, and hands over its exit code.
fn terminated(process: &mut Process) -> Option<i32> {
    let pid = process.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
    process.0.wait().expect("it is a child").code()
}

#[test]
fn a_worker_that_is_asked_to_stop_hands_its_place_on_and_ends_well() {
    let folder = folder_with_job();
    let longer = ["--set", "schedule.turns=240"];
    let whole = run_to_end(folder.path(), &[&["run", "job.yaml", "--state", "whole"][..], &longer].concat());
    let (_coordinator, url) = coordinator(folder.path());
    let _others = ["audio", "text"].map(|modality| worker(folder.path(), &url, modality));
    let mut image = worker(folder.path(), &url, "image");
    let mut idle = worker(folder.path(), &url, "image");
    let (mut submit, mut lines) = followed(folder.path(), &url, &longer);
    for turn in [40, 120] {
        lines.find(|line| line.contains(&format!(r#""turn":{turn},"#))).expect("a step");
        let (leaves, comes) = if turn == 40 { (&mut image, None) } else { (&mut idle, Some(&mut image)) };
        assert_eq!(terminated(leaves), Some(0), "it has nothing to complain of");
        if let Some(place) = comes {
            *place = worker(folder.path(), &url, "image");
        }
    }
    let last: Value = serde_json::from_str(&lines.last().expect("a last line")).expect("JSON");
    assert_eq!(submit.wait().expect("it ends").code(), Some(0), "{last}");
    assert_eq!((&last["digest"], &last["evaluation"]), (&whole["digest"], &whole["evaluation"]));
}

#[test]
fn a_job_without_workers_says_so_and_the_client_gives_up_in_time() {
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
            "job {job} is not done after 1 s: waiting for 1 `audio` worker: 0 registered; waiting for 1 `image` \
                 worker: 0 registered; waiting for 1 `text` worker: 0 registered; it goes on without being followed"
        )
    );
}

#[test]
fn whoever_finds_no_coordinator_says_where_it_looked() {
    let folder = folder_with_job();
    let nowhere = "http://127.0.0.1:9";
    let at_once = ["submit", "job.yaml", "--coordinator", nowhere, "--reconnect-for", "0"];
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
fn what_is_wrong_with_a_job_its_data_or_its_checkpoint_has_its_exit_code_and_leaves_nothing_behind() {
    let folder = folder_with_job();
    let path = folder.path();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["run", "nowhere.yaml"], 2, "nowhere.yaml: No such file or directory"),
        (&["run", "job.yaml", "--set", "head.width=none"], 2, "--set head.width=none"),
        (&["run", "job.yaml", "--resume", "nowhere"], 2, "there is no complete checkpoint in `nowhere`"),
        (&["run", "job.yaml", "--resume"], 2, "leave out --resume to start one"),
        (&["check", "job.yaml", "--set", "seed=-1"], 2, "seed"),
        (&["coordinator", "--listen", "0.0.0.0:0"], 2, "--insecure-allow-remote"),
    ];
    for (arguments, expected, part) in cases {
        let (code, lines) = json_lines(path, arguments);
        let said = lines.last().map(ToString::to_string).unwrap_or_default();
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
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
