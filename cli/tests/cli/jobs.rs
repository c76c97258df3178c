//! `antiphon jobs`, `follow` and `stop`: commands that name a job by its id, run by another client than the one that
//! submitted it.

use std::path::Path;
use std::process::Output;

use crate::support::process::{Client, coordinator, worker};
use crate::support::{antiphon, folder_with_job, json_lines, run_to_end};
use serde_json::Value;

/// The text output of a command.
fn told(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = antiphon(folder, arguments).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// Runs a command line that was printed and returns its result.
fn in_shell(folder: &Path, command: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_antiphon")).parent().expect("a folder").to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(program).chain(std::env::split_paths(&others)));
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", command]).current_dir(folder).env("PATH", path.expect("a search path")).env_remove("RUST_LOG");
    shell.output().expect("bash starts")
}

#[test]
fn a_job_is_listed_told_of_and_stopped_by_its_id() {
    let folder = folder_with_job();
    let (_coordinator, url) = coordinator(folder.path());
    let at = |arguments: &[&str]| [arguments, &["--coordinator", &url]].concat().join(" ");
    let ask = |arguments: &[&str]| told(folder.path(), &at(arguments).split(' ').collect::<Vec<_>>());
    let ask_json = |arguments: &[&str]| json_lines(folder.path(), &at(arguments).split(' ').collect::<Vec<_>>());
    assert_eq!(ask(&["jobs"]), (Some(0), "no jobs\n".to_owned(), String::new()));

    // In the order of submission, not of their ids.
    for id in ["zebra", "ant"] {
        assert_eq!(ask(&["submit", "job.yaml", "--id", id, "--set", "schedule.turns=9"]).0, Some(0));
    }
    let waits = "waiting for 1 `audio` worker: 0 registered";
    let (code, lines) = ask_json(&["jobs"]);
    let listed: Vec<&str> = lines.iter().filter_map(|line| line["job"].as_str()).collect();
    assert_eq!((code, listed), (Some(0), vec!["zebra", "ant"]), "{lines:?}");
    let first = &lines[0];
    assert_eq!((&first["event"], &first["state"], &first["turn"]), (&"job".into(), &"waiting".into(), &0.into()));
    assert!(first["reason"].as_str().is_some_and(|reason| reason.starts_with(waits)), "{first}");
    let (_, table, _) = ask(&["jobs"]);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("JOB    STATE    TURN"), "{table}");
    assert!(rows[1].starts_with("zebra  waiting  0") && rows[1].contains(waits), "{table}");
    let (_, details, _) = ask(&["jobs", "ant"]);
    assert!(
        details.starts_with("job         ant\n") && details.contains(&format!("\nreason      {waits}")),
        "{details}"
    );

    // The specification, in a form that can be submitted.
    let (code, specification, _) = ask(&["jobs", "ant", "--specification"]);
    assert_eq!(code, Some(0));
    assert!(specification.starts_with("name: small\nseed: 11\nmodalities:\n  - name: audio\n"), "{specification}");
    std::fs::write(folder.path().join("again.yaml"), specification).expect("it is written");
    let (code, lines) = json_lines(folder.path(), &["check", "again.yaml"]);
    assert_eq!(code, Some(0), "{lines:?}");
    let (_, printed) = ask_json(&["jobs", "ant", "--specification"]);
    assert_eq!(lines[0]["specification"], printed[0], "as JSON it is the same job");

    let (code, said, _) = ask(&["stop", "zebra"]);
    assert_eq!((code, said.as_str()), (Some(0), "zebra has ended: stopped after 0 turns\n"));
    let (code, said, _) = ask(&["stop", "ant", "--follow"]);
    assert!(code == Some(0) && said.ends_with("stopped after 0 turns, without a checkpoint\n"), "{said}");
    let (code, said, _) = ask(&["stop", "ant"]);
    assert_eq!((code, said.as_str()), (Some(0), "ant has ended: stopped after 0 turns\n"));
    let (code, said, _) = ask(&["follow", "ant"]);
    assert!(code == Some(130) && said.ends_with("stopped after 0 turns, without a checkpoint\n"), "{said}");

    for command in [&["jobs", "bee"][..], &["follow", "bee"], &["stop", "bee"]] {
        let (code, _, complaint) = ask(command);
        assert_eq!(code, Some(2));
        assert_eq!(complaint, "error: this coordinator has no job `bee`; `antiphon jobs` lists all jobs\n");
    }
}

#[test]
fn a_stopped_job_says_how_to_resume_it_in_every_command() {
    let folder = folder_with_job();
    let (_coordinator, url) = coordinator(folder.path());
    let _workers = ["audio", "image", "text"].map(|modality| worker(folder.path(), &url, modality));
    let submit = ["submit", "job.yaml", "--id", "long", "--set", "schedule.turns=100000", "--coordinator", &url];
    assert_eq!(json_lines(folder.path(), &submit).0, Some(0));
    Client::start(folder.path(), &["follow", "long", "--coordinator", &url]).until("step");
    let ask = |arguments: &[&str]| told(folder.path(), &[arguments, &["--coordinator", &url]].concat());

    let (code, said, _) = ask(&["stop", "long", "--follow"]);
    assert_eq!(code, Some(0), "{said}");
    let (_, command) = said.trim_end().split_once("; resume with\n  ").expect("a command");
    let wanted =
        format!("antiphon jobs long --specification --coordinator {url} | antiphon submit - --coordinator {url}");
    let checkpoint = command.strip_prefix(&wanted).and_then(|rest| rest.strip_prefix(" --resume ")).expect(command);
    assert!(checkpoint.contains("/long/checkpoints/"), "{command}");
    let (code, said, _) = ask(&["follow", "long"]);
    assert!(code == Some(130) && said.trim_end().ends_with(command), "{said}");
    let (code, said, _) = ask(&["stop", "long"]);
    assert!(code == Some(0) && said.ends_with(&format!("\nresume with\n  {command}\n")), "{said}");

    // The printed command resumes the job.
    let output = in_shell(folder.path(), command);
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && said.starts_with("submitted small-"), "{said}");
    let resumed = said.trim().trim_start_matches("submitted ");
    let mut follower = Client::start(folder.path(), &["follow", resumed, "--coordinator", &url]);
    assert_eq!(follower.until("submitted")["resumed_from"], checkpoint);
}

#[test]
fn following_a_job_shows_all_events_and_has_its_exit_code() {
    let folder = folder_with_job();
    let whole = run_to_end(folder.path(), &["run", "job.yaml", "--state", "whole"]);
    let (_coordinator, url) = coordinator(folder.path());
    let (_, lines) = json_lines(folder.path(), &["submit", "job.yaml", "--coordinator", &url]);
    let job = lines[0]["job"].as_str().expect("an id");
    let _workers = ["audio", "image", "text"].map(|modality| worker(folder.path(), &url, modality));
    // While it runs, and after it has ended.
    for _ in 0..2 {
        let (code, lines) = json_lines(folder.path(), &["follow", job, "--coordinator", &url]);
        assert_eq!((code, &lines[0]["event"]), (Some(0), &Value::from("submitted")));
        let last = lines.last().expect("a last line");
        assert_eq!((&last["event"], &last["digest"]), (&"finished".into(), &whole["digest"]));
    }
    let (_, lines) = json_lines(folder.path(), &["jobs", job, "--coordinator", &url]);
    let told = &lines[0];
    assert_eq!((&told["state"], &told["turn"]), (&"succeeded".into(), &told["turns"]), "{told}");
    assert!(told["checkpoint"].is_string(), "{told}");
}

#[test]
fn an_interrupted_stop_does_not_say_that_the_job_has_stopped() {
    let folder = folder_with_job();
    let (_coordinator, url) = coordinator(folder.path());
    let submit = ["submit", "job.yaml", "--id", "held", "--set", "schedule.turns=100000", "--coordinator", &url];
    assert_eq!(json_lines(folder.path(), &submit).0, Some(0));
    let _others = ["audio", "image"].map(|modality| worker(folder.path(), &url, modality));
    let text = worker(folder.path(), &url, "text");
    let mut follower = Client::start(folder.path(), &["follow", "held", "--coordinator", &url]);
    follower.until("step");
    drop(text);
    follower.until("worker_lost");
    // The job waits in a turn of the killed worker, and reports that.
    follower.until("waiting");
    let mut stopper = Client::start(folder.path(), &["stop", "held", "--follow", "--coordinator", &url]);
    stopper.until("waiting");
    stopper.process.signal("-INT");
    assert_eq!(stopper.process.ended(), Some(130));
    let (code, said, _) = told(folder.path(), &["stop", "held", "--coordinator", &url]);
    let waits = "held has not stopped yet: asked to stop; turn ";
    assert!(code == Some(0) && said.starts_with(waits) && said.contains("waiting for 1 `text` worker"), "{said}");
    // With --now, the job does not wait.
    let stop = ["stop", "held", "--follow", "--now", "--coordinator", &url];
    let (code, lines) = json_lines(folder.path(), &stop);
    let last = lines.last().expect("a last line");
    assert_eq!((code, &last["state"]), (Some(0), &"stopped".into()), "{lines:?}");
    assert_eq!(follower.process.ended(), Some(130));
}

#[test]
fn a_missing_coordinator_is_retried_until_the_timeout() {
    let folder = folder_with_job();
    let nowhere = ["--coordinator", "http://127.0.0.1:9"];
    let refused = "no coordinator answers at http://127.0.0.1:9: Connection refused";
    for (command, gives_up) in
        [(&["jobs"][..], false), (&["stop", "j"], false), (&["follow", "j", "--reconnect-timeout", "1"], true)]
    {
        let (code, lines) = json_lines(folder.path(), &[command, &nowhere].concat());
        let last = lines.last().and_then(|line| line["error"].as_str()).expect("a last line");
        assert!(code == Some(3) && last.starts_with(refused), "{lines:?}");
        assert_eq!(last.contains("; gave up after "), gives_up, "{last}");
        assert!(last.ends_with("start one with `antiphon coordinator`, or name another with --coordinator"), "{last}");
    }
    let (code, lines) = json_lines(folder.path(), &[&["follow", "j", "--timeout", "1"][..], &nowhere].concat());
    let error = lines.last().expect("a last line")["error"].as_str().expect("an error").to_owned();
    assert_eq!((code, error.as_str()), (Some(4), "no answer from the coordinator at http://127.0.0.1:9 after 1 s"));
}
