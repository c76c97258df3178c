//! `antiphon verify`: sound and damaged checkpoints, and replays.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{antiphon, folder_with_job, json_lines, parse_lines, run_to_end};
use antiphon_testing_s3::{Faults, Operation, Server, When};
use serde_json::Value;

/// A run with checkpoints at turns 20, 40 and 60; the digest of the last.
fn run(folder: &Path) -> String {
    let arguments = ["run", "job.yaml", "--state", "runs", "--set", "checkpoints.every=20 turns"];
    run_to_end(folder, &arguments)["digest"].as_str().expect("a digest").to_owned()
}

/// The folder of the checkpoint at a turn.
fn checkpoint(folder: &Path, turn: u64) -> PathBuf {
    let run = fs::read_dir(folder.join("runs")).expect("runs").next().expect("a run").expect("an entry");
    run.path().join(format!("checkpoints/{turn:08}"))
}

fn verify(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, mut lines) = json_lines(folder, &[&["verify"], arguments].concat());
    (code, lines.pop().expect("it says something"))
}

/// The files that are not sound, with the reasons.
fn damaged(verified: &Value) -> Vec<(String, String)> {
    let files = verified["files"].as_array().expect("files").iter();
    let damaged = files.filter(|file| file["sound"] == false);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    damaged.map(|file| (text(&file["file"]), text(&file["reason"]))).collect()
}

#[test]
fn a_checkpoint_is_sound_and_training_again_gives_the_same() {
    let folder = folder_with_job();
    let digest = run(folder.path());
    let path = |turn| checkpoint(folder.path(), turn).display().to_string();
    let (code, verified) = verify(folder.path(), &[&path(60)]);
    assert_eq!((code, &verified["sound"]), (Some(0), &Value::Bool(true)), "{verified}");
    assert_eq!((&verified["event"], &verified["turn"]), (&"verified".into(), &60.into()));
    assert_eq!((verified["digest"].as_str(), &verified["replay"]), (Some(digest.as_str()), &Value::Null));
    assert_eq!(verified["files"].as_array().map(Vec::len), Some(10), "the manifest, 3 of the head, 2 of each modality");

    let from = path(20);
    for (turn, from) in [(40, None), (60, Some(from.as_str()))] {
        let path = path(turn);
        let mut arguments = vec![path.as_str(), "--replay"];
        arguments.extend(from.iter().flat_map(|from| ["--from", from]));
        let (code, verified) = verify(folder.path(), &arguments);
        assert_eq!((code, &verified["replay"]["same"]), (Some(0), &Value::Bool(true)), "{verified}");
        assert_eq!(verified["replay"]["digest"], verified["digest"]);
        assert_eq!(verified["replay"]["from"].as_str(), from);
    }
    let (code, error) = verify(folder.path(), &[&path(20), "--replay", "--from", &path(40)]);
    assert_eq!(code, Some(2), "{error}");
    assert_eq!(error["error"], "the checkpoint of --from is at turn 40; name one before turn 20");
    assert_eq!(verify(folder.path(), &["nowhere"]).0, Some(2));
}

#[test]
fn what_is_damaged_is_named_with_what_is_wrong() {
    let folder = folder_with_job();
    run(folder.path());
    let place = checkpoint(folder.path(), 60);
    let path = place.display().to_string();
    let (head, encoder, state) = ("head.safetensors", "encoder-text.safetensors", "encoder-audio.state.safetensors");
    let mut bytes = fs::read(place.join(head)).expect("the head");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(place.join(head), bytes).expect("it is written");
    let bytes = fs::read(place.join(encoder)).expect("an encoder");
    fs::write(place.join(encoder), &bytes[..bytes.len() - 4]).expect("it is written");
    fs::remove_file(place.join(state)).expect("it is removed");
    let (code, verified) = verify(folder.path(), &[&path]);
    let damaged = damaged(&verified);
    let names: Vec<&str> = damaged.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!((code, names), (Some(1), vec![state, encoder, head]), "{verified}");
    let length = bytes.len();
    assert_eq!(damaged[0].1, "it is missing");
    assert_eq!(damaged[1].1, format!("its size is {}, but {length} in the manifest", length - 4));
    assert!(damaged[2].1.starts_with("its SHA-256 is "), "{damaged:?}");

    let output = antiphon(folder.path(), &["verify", &path]).output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("damaged: 3 of 10 files") && text.contains("DAMAGED: it is missing"), "{text}");
    assert!(text.contains(", as in the manifest\n"), "{text}");
    assert!(text.contains("turn 60, 2 epochs complete\n"), "{text}");
}

#[test]
fn an_epoch_whose_last_turn_is_done_is_complete() {
    let folder = folder_with_job();
    let length = ["--state", "runs", "--set", "schedule={epochs: 1, batch: 16}"];
    let finished = run_to_end(folder.path(), &[&["run", "job.yaml"][..], &length].concat());
    let path = finished["checkpoint"].as_str().expect("a checkpoint");
    assert_eq!(verify(folder.path(), &[path]).1["epoch"], 1);
    let output = antiphon(folder.path(), &["verify", path]).output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains(", 1 epoch complete\n"), "{text}");
}

#[test]
fn a_damaged_checkpoint_names_the_newest_undamaged_one() {
    let folder = folder_with_job();
    run(folder.path());
    let [early, middle, last] =
        [20, 40, 60].map(|turn| checkpoint(folder.path(), turn).canonicalize().expect("a folder"));
    let job = last.parent().and_then(Path::parent).expect("a job's folder").display().to_string();
    for damaged in [&middle, &last] {
        fs::write(damaged.join("head.safetensors"), "").expect("it is written");
    }
    let sound = format!("the newest undamaged checkpoint of this job is `{}`; ", early.display());
    let resume = format!("--resume {}`", early.display());
    let set = ["--state", "runs", "--set", "checkpoints.every=20 turns"];
    let run = [&["run", "job.yaml", "--resume"][..], &set].concat();
    for (arguments, action) in [
        (&["verify", &job][..], "resume from it with `antiphon run JOB.yaml "),
        (&["eval", &job], "evaluate it with `antiphon eval "),
        (&["predict", &job], "predict with it: `antiphon predict "),
        (&run, "resume from it with `antiphon run job.yaml --set "),
    ] {
        let output = antiphon(folder.path(), arguments).output().expect("the program runs");
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text")).concat();
        assert!(!output.status.success() && text.contains(&format!("{sound}{action}")), "{arguments:?}: {text}");
        assert!(!action.starts_with("resume") || text.contains(&resume), "{text}");
    }
    // A file of an encoder, which a worker reads.
    fs::remove_dir_all(&last).expect("it is removed");
    fs::remove_dir_all(&middle).expect("it is removed");
    fs::write(early.join("encoder-text.safetensors"), "").expect("it is written");
    let output = antiphon(folder.path(), &run).output().expect("the program runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let none = format!("checkpoint `{}` is damaged; this job has no undamaged checkpoint\n", early.display());
    assert!(output.status.code() == Some(1) && said.ends_with(&none), "{said}");
}

/// Verifies the newest checkpoint of a run on a server, with this `--store-retry-timeout`.
async fn verify_there(environment: Vec<(&'static str, String)>, timeout: &'static str) -> (Option<i32>, Value) {
    let verify = move || {
        let arguments = ["verify", "s3://bucket/jobs/small", "--store-retry-timeout", timeout, "--format", "json"];
        antiphon(Path::new("."), &arguments).envs(environment).output().expect("the program runs")
    };
    let output = tokio::task::spawn_blocking(verify).await.expect("no panic");
    (output.status.code(), parse_lines(&output).pop().expect("it says something"))
}

/// A server that holds the checkpoint of a run.
async fn served() -> Server {
    let (folder, server) = (folder_with_job(), Server::start().await);
    run(folder.path());
    for file in fs::read_dir(checkpoint(folder.path(), 60)).expect("a checkpoint") {
        let file = file.expect("an entry");
        let name = file.file_name().into_string().expect("text");
        server.put(&format!("{SERVED}/{name}"), fs::read(file.path()).expect("a file").into());
    }
    server
}

const SERVED: &str = "bucket/jobs/small/checkpoints/00000060";

/// Each file with its state.
fn states(verified: &Value) -> Vec<(&str, &str)> {
    let files = verified["files"].as_array().expect("files").iter();
    files.map(|file| (file["file"].as_str().expect("text"), file["state"].as_str().expect("text"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_store_is_retried() {
    let server = served().await;
    server.set_faults(Faults::frequent(3));
    let (code, verified) = verify_there(server.environment(), "60").await;
    assert_eq!((code, &verified["sound"]), (Some(0), &true.into()), "{verified}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_does_not_give_is_not_called_damaged() {
    let server = served().await;
    let head = format!("{SERVED}/head.safetensors");
    for (code, state) in [(3, "sound"), (1, "damaged")] {
        server.set_faults(Faults::NONE);
        let mut held = server.hold(When::Before, |request| {
            request.operation == Operation::Head && request.paths[0].ends_with("encoder-image.safetensors")
        });
        let verifying = tokio::spawn(verify_there(server.environment(), "1"));
        held.wait().await;
        server.set_faults(Faults { refused: 1.0, ..Faults::NONE });
        held.release();
        let (found, verified) = verifying.await.expect("no panic");
        let [sound, unreadable] = ["sound", "unreadable"];
        let expected = [
            ("encoder-audio.safetensors", sound),
            ("encoder-audio.state.safetensors", sound),
            ("encoder-image.safetensors", unreadable),
            ("encoder-image.state.safetensors", unreadable),
            ("encoder-text.safetensors", unreadable),
            ("encoder-text.state.safetensors", unreadable),
            ("head.safetensors", state),
            ("head.state.safetensors", sound),
            ("manifest.json", sound),
            ("projector.safetensors", sound),
        ];
        assert_eq!((found, states(&verified), &verified["sound"]), (Some(code), expected.to_vec(), &false.into()));
        let reason = verified["files"][2]["reason"].as_str().expect("text");
        assert!(reason.starts_with("the server answered 503 Service Unavailable"), "{reason}");
        let mut bytes = server.object(&head).expect("it is there").to_vec();
        *bytes.last_mut().expect("bytes") ^= 1;
        server.put(&head, bytes.into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_reached_is_no_verdict() {
    let environment = Server::start().await.environment();
    let (code, error) = verify_there(environment, "0").await;
    let expected = "cannot read `s3://bucket/jobs/small/manifest.json`: Connection refused (os error 111)";
    assert_eq!(code, Some(3), "{error}");
    assert!(error["error"].as_str().is_some_and(|error| error.starts_with(expected)), "{error}");
}

/// The manifest of the checkpoint at turn 60 with a change.
fn with_manifest(change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, String) {
    let folder = folder_with_job();
    run(folder.path());
    let place = checkpoint(folder.path(), 60);
    let file = place.join("manifest.json");
    let mut manifest = serde_json::from_slice(&fs::read(&file).expect("a manifest")).expect("JSON");
    change(&mut manifest);
    fs::write(&file, manifest.to_string()).expect("it is written");
    (folder, place.display().to_string())
}

#[test]
fn files_that_do_not_fit_the_job_are_named() {
    let (folder, path) = with_manifest(|manifest| {
        manifest["specification"]["head"]["width"] = 17.into();
        manifest["state"]["steps_done"]["text"] = 1.into();
        manifest["files"]["stray.safetensors"] = manifest["files"]["head.safetensors"].clone();
        manifest["files"].as_object_mut().expect("files").remove("encoder-audio.safetensors");
    });
    let (code, verified) = verify(folder.path(), &[&path]);
    let damaged = damaged(&verified);
    assert_eq!(code, Some(1));
    let reason = |file: &str| damaged.iter().find(|(name, _)| name == file).map(|(_, reason)| reason.as_str());
    assert_eq!(reason("encoder-audio.safetensors"), Some("the manifest does not name it"));
    assert_eq!(reason("stray.safetensors"), Some("the job has no such file"));
    assert_eq!(
        reason("head.safetensors"),
        Some(
            "tensor `weight` has shape [10, 16] but this job needs [10, 17]; use a checkpoint of a job with the same \
             head and labels"
        ),
        "{verified}"
    );

    let (folder, path) = with_manifest(|manifest| manifest["specification"]["head"]["width"] = "wide".into());
    let (code, verified) = verify(folder.path(), &[&path]);
    let (file, reason) = &self::damaged(&verified)[0];
    assert_eq!((code, file.as_str()), (Some(1), "manifest.json"));
    assert!(reason.contains("head.width"), "{reason}");
}

#[test]
fn a_replay_that_differs_names_the_files() {
    let (folder, path) = with_manifest(|manifest| manifest["specification"]["head"]["optimizer"]["lr"] = 0.04.into());
    let (code, verified) = verify(folder.path(), &[&path, "--replay"]);
    assert_eq!((code, &verified["sound"], &verified["replay"]["same"]), (Some(1), &true.into(), &false.into()));
    let files = verified["replay"]["files"].as_array().expect("files");
    let head = files.iter().find(|file| file["file"] == "head.safetensors").expect("the head");
    assert_eq!(head["same"], false, "{verified}");
    assert_ne!(head["sha256"], head["replayed"]);
}
