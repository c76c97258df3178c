//! `antiphon submit` with coordinators that do not exist, start late, are stopped, or do not answer.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

use crate::support::process::{Client, Process, address, listening, read_to_its_end, worker};
use crate::support::{antiphon, folder_with_job, json_lines, run_to_end};
use antiphon_testing_s3::Server;
use serde_json::Value;

/// A coordinator that listens, and its URL.
fn coordinator(folder: &Path, address: &str, environment: &[(&str, String)], more: &[&str]) -> (Process, String) {
    let arguments = [&["coordinator", "--listen", address, "--format", "json"], more].concat();
    let mut program = antiphon(folder, &arguments);
    program.envs(environment.iter().map(|(name, value)| (name, value)));
    let (process, url, log) = listening(program);
    read_to_its_end(log);
    (process, url)
}

/// A client that submits the job.
fn submitting(folder: &Path, url: &str, more: &[&str]) -> Client {
    Client::start(folder, &[&["submit", "job.yaml", "--coordinator", url], more].concat())
}

#[test]
fn a_late_coordinator_is_retried_until_the_timeout() {
    let folder = folder_with_job();
    let late = address().to_string();
    let url = format!("http://{late}");
    let mut client = submitting(folder.path(), &url, &["--id", "late", "--reconnect-timeout", "100"]);
    let unreachable = client.until("unreachable");
    assert_eq!((&unreachable["job"], &unreachable["seconds"]), (&"late".into(), &0.into()), "{unreachable}");
    let said = unreachable["error"].as_str().expect("an error");
    assert!(said.starts_with(&format!("no coordinator at {url}: Connection refused")), "{said}");
    let _coordinator = coordinator(folder.path(), &late, &[], &[]);
    client.until("reconnected");
    assert_eq!(client.until("submitted")["job"], "late");
    assert_eq!(client.process.ended(), Some(0));

    let nowhere = format!("http://{}", address());
    let arguments = ["submit", "job.yaml", "--coordinator", &nowhere, "--reconnect-timeout", "1"];
    let (code, lines) = json_lines(folder.path(), &arguments);
    assert_eq!((code, &lines[0]["event"]), (Some(3), &"unreachable".into()), "{lines:?}");
    let error = lines.last().expect("a last line")["error"].as_str().expect("an error");
    assert!(error.contains("; gave up after 1 s; start one with"), "{error}");
    let (code, lines) = json_lines(folder.path(), &[&arguments[..5], &["100", "--timeout", "1"]].concat());
    let error = lines.last().expect("a last line")["error"].as_str().expect("an error");
    assert!(
        error.starts_with(&format!("the job was not submitted within 1 s: no coordinator at {nowhere}: ")),
        "{error}"
    );
    assert_eq!(code, Some(4));
}

/// Forwards bytes in both directions, but drops the first answer to a submission and its connection.
fn losing_the_first_answer(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let to = to.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let client = client.expect("it is accepted");
            let server = TcpStream::connect(&to).expect("the coordinator is there");
            let (mut up, mut into) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
            std::thread::spawn(move || std::io::copy(&mut up, &mut into));
            std::thread::spawn(move || pass(server, client, number == 0));
        }
    });
    url
}

/// Forwards from a coordinator to its client, up to the answer that is dropped.
fn pass(mut server: TcpStream, mut client: TcpStream, lose: bool) {
    use std::io::{Read as _, Write as _};
    let mut bytes = [0; 65536];
    while let Ok(read @ 1..) = server.read(&mut bytes) {
        let is_answer = bytes[..read].windows(4).any(|window| window == b"once");
        if lose && is_answer || client.write_all(&bytes[..read]).is_err() {
            let _closed = (server.shutdown(std::net::Shutdown::Both), client.shutdown(std::net::Shutdown::Both));
            return;
        }
    }
}

#[test]
fn a_submission_whose_answer_is_lost_is_retried_as_one_job() {
    let folder = folder_with_job();
    let (_coordinator, url) = coordinator(folder.path(), "127.0.0.1:0", &[], &[]);
    let through = losing_the_first_answer(url.clone());
    let arguments = ["submit", "job.yaml", "--id", "once", "--coordinator", &through];
    let (code, lines) = json_lines(folder.path(), &arguments);
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!((code, events), (Some(0), vec!["unreachable", "reconnected", "submitted"]), "{lines:?}");
    let (code, lines) = json_lines(folder.path(), &arguments);
    assert_eq!((code, &lines[0]["error"]), (Some(2), &"there is a job `once` already; choose another id".into()));
}

#[test]
fn a_stopped_coordinator_is_noticed_and_timeouts_hold() {
    let folder = folder_with_job();
    let (coordinator, url) = coordinator(folder.path(), "127.0.0.1:0", &[], &[]);
    let mut follower = submitting(folder.path(), &url, &["--follow"]);
    follower.until("submitted");
    coordinator.signal("-STOP");
    let submit = ["submit", "job.yaml", "--coordinator", &url];
    let (code, lines) = json_lines(folder.path(), &[&submit[..], &["--reconnect-timeout", "1"]].concat());
    let error = lines.last().expect("a last line")["error"].as_str().expect("an error");
    assert!(error.starts_with(&format!("no coordinator at {url}: it does not answer; gave up after 1 s")), "{error}");
    assert_eq!(code, Some(3));
    let (code, lines) = json_lines(folder.path(), &[&submit[..], &["--timeout", "1"]].concat());
    let error = lines.last().expect("a last line")["error"].as_str().expect("an error");
    assert_eq!(error, format!("the job was not submitted within 1 s: the coordinator at {url} has not answered"));
    assert_eq!(code, Some(4));
    // A connected client notices the outage, too, and reconnects.
    let unreachable = follower.until("unreachable");
    assert_eq!(unreachable["seconds"], 0, "{unreachable}");
    coordinator.signal("-CONT");
    follower.until("reconnected");
    follower.process.signal("-INT");
    assert_eq!(follower.process.ended(), Some(130));
}

#[test]
fn workers_keep_their_slots_when_the_coordinator_stalls() {
    let folder = folder_with_job();
    let (coordinator, url) = coordinator(folder.path(), "127.0.0.1:0", &[], &["--heartbeat-seconds", "1"]);
    // One worker is free, and would take a released slot.
    let _workers = ["audio", "image", "text", "audio"].map(|modality| worker(folder.path(), &url, modality));
    let endless = ["--id", "endless", "--follow", "--set", "schedule.turns=1000000", "--set", "schedule.lease_ttl=5s"];
    let mut follower = submitting(folder.path(), &url, &endless);
    follower.until("started");
    for stall in [5_200, 5_800] {
        coordinator.signal("-STOP");
        std::thread::park_timeout(std::time::Duration::from_millis(stall));
        coordinator.signal("-CONT");
        for _ in 0..20 {
            follower.until("step");
        }
    }
    let (code, _) = json_lines(folder.path(), &["stop", "endless", "--coordinator", &url]);
    assert_eq!(code, Some(0));
    follower.until("finished");
    let (_, events) = json_lines(folder.path(), &["follow", "endless", "--coordinator", &url]);
    let lost = |event: &&Value| event["event"] == "lease_expired" || event["event"] == "worker_lost";
    let lost: Vec<&Value> = events.iter().filter(lost).collect();
    assert!(lost.is_empty() && events.len() > 40, "{lost:?}");
}

#[test]
fn a_timeout_holds_while_a_followed_coordinator_is_stopped() {
    let folder = folder_with_job();
    let (coordinator, url) = coordinator(folder.path(), "127.0.0.1:0", &[], &[]);
    let mut follower = submitting(folder.path(), &url, &["--follow", "--timeout", "3"]);
    let job = follower.until("submitted")["job"].as_str().expect("an id").to_owned();
    coordinator.signal("-STOP");
    let error = follower.until("error")["error"].as_str().expect("an error").to_owned();
    let expected = format!("job {job} has not ended after 3 s: the coordinator does not answer; it keeps running");
    assert_eq!(error, expected);
    assert_eq!(follower.process.ended(), Some(4));
}

#[test]
fn a_submission_says_that_it_waits_for_the_store() {
    let folder = folder_with_job();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::start());
    let more = ["--state", "s3://bucket/runs"];
    let (_coordinator, url) = coordinator(folder.path(), "127.0.0.1:0", &server.environment(), &more);
    // The server is unreachable, and the client retries.
    runtime.shutdown_background();
    let (code, lines) = json_lines(folder.path(), &["submit", "job.yaml", "--coordinator", &url, "--timeout", "2"]);
    let error = lines.last().expect("a last line")["error"].as_str().expect("an error");
    let expected = format!(
        "the job was not submitted within 2 s: the coordinator at {url} has not persisted the job, and may still \
         accept it"
    );
    assert_eq!((code, error), (Some(4), &*expected), "{lines:?}");
}

#[test]
fn a_failed_or_stopped_run_says_how_to_resume_it() {
    let folder = folder_with_job();
    let diverging = ["--set", "modalities.text.optimizer={kind: sgd, lr: 1e30}", "--set", "checkpoints.every=1 turn"];
    let (code, lines) = json_lines(folder.path(), &[&["run", "job.yaml"][..], &diverging].concat());
    let last = lines.last().expect("a last line");
    assert_eq!((code, &last["state"]), (Some(1), &"failed".into()), "{last}");
    let resume = last["resume"].as_str().unwrap_or_else(|| panic!("a command: {last}"));
    assert!(
        resume.starts_with("antiphon run job.yaml --set ") && resume.contains(" --resume ./antiphon-runs/"),
        "{resume}"
    );
    let output = antiphon(folder.path(), &[&["run", "job.yaml"][..], &diverging].concat()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("resume from its newest checkpoint with\n  antiphon run job.yaml --set "), "{said}");
    let last = run_to_end(folder.path(), &["run", "job.yaml", "--set", "schedule.turns=0"]);
    assert_eq!(last["resume"], Value::Null, "there is nothing left to do: {last}");

    let missing = ["--set", "modalities.audio.data={source: parquet, train: nothing-*.parquet}"];
    let (_, lines) = json_lines(folder.path(), &[&["run", "job.yaml"][..], &missing].concat());
    let last = lines.last().expect("a last line");
    assert_eq!((&last["state"], &last["resume"]), (&"failed".into(), &Value::Null), "there is no checkpoint: {last}");
}

#[test]
fn a_resumed_run_without_turns_left_says_so() {
    let folder = folder_with_job();
    assert_eq!(run_to_end(folder.path(), &["run", "job.yaml", "--set", "schedule.turns=10"])["turn"], 10);
    let resume = |turns: &str| {
        let turns = format!("schedule.turns={turns}");
        let output =
            antiphon(folder.path(), &["run", "job.yaml", "--set", &turns, "--resume"]).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, said) = resume("10");
    let note = "nothing is left to train: the checkpoint is at turn 10, and the job asks for 10 turns; to train further, raise \
                `schedule.turns` in the job file, or pass for example --set schedule.turns=20\n";
    assert!(code == Some(0) && said.contains(note) && said.ends_with("succeeded after 10 turns\n"), "{said}");
    let (code, said) = resume("20");
    assert!(
        code == Some(0) && !said.contains("nothing is left") && said.ends_with("succeeded after 20 turns\n"),
        "{said}"
    );
}

#[test]
fn an_id_that_is_none_names_its_option() {
    let folder = folder_with_job();
    let output = antiphon(folder.path(), &["submit", "job.yaml", "--id", "J1"]).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(
        output.status.code() == Some(2) && said.contains("'--id <ID>': `J1` is not a job id: use 1 to 63"),
        "{said}"
    );
}

#[test]
fn a_run_stopped_before_its_first_turn_has_no_checkpoint() {
    let folder = folder_with_job();
    // A server that never answers, so the data never open.
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let data = format!(
        "modalities.audio.data={{source: parquet, train: \"http://{}/x.parquet\"}}",
        listener.local_addr().expect("it is bound")
    );
    let run = antiphon(folder.path(), &["run", "job.yaml", "--set", &data])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut run = Process(run.expect("it starts"));
    let said = BufReader::new(run.0.stdout.take().expect("its output")).lines().map(|line| line.expect("a line"));
    let _asked = listener.accept().expect("the data are asked for");
    run.signal("-INT");
    let said: Vec<String> = said.skip(1).collect();
    assert_eq!(said, ["stopping; Ctrl-C again ends at once", "stopped after 0 turns, without a checkpoint"]);
    assert_eq!(run.ended(), Some(130));
}
