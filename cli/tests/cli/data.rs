//! Generating data sets, inspecting them and training on them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{SMALL_JOB, antiphon, folder_with_job, json_lines, run_to_end};

/// The data of [`SMALL_JOB`], as files.
const SMALL_DATA: [&str; 14] = [
    "data",
    "synth",
    "spoken-digits",
    "digits",
    "--train",
    "150",
    "--validation",
    "40",
    "--test",
    "50",
    "--missing",
    "20%",
    "--rows-per-shard",
    "64",
];

fn text(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = antiphon(folder, arguments).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The job in the text output of `data synth`.
fn proposed(told: &str) -> String {
    let lines = told.lines().skip_while(|line| !line.starts_with("    name:"));
    lines.map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn files_train_to_the_same_digest_as_rows_made_on_the_way() {
    let folder = folder_with_job();
    let (code, lines) = json_lines(folder.path(), &SMALL_DATA);
    assert_eq!((code, &lines[0]["event"]), (Some(0), &"generated".into()));
    assert_eq!(lines[0]["files"].as_array().map(Vec::len), Some(5), "three shards to learn from, and two splits more");
    let (start, rest) = SMALL_JOB.split_once("data:").expect("a job has data");
    let (_, rest) = rest.split_once("modalities:").expect("a job has modalities");
    let data =
        "{train: digits/train-*.parquet, validation: digits/validation-*.parquet, test: digits/test-*.parquet, id: id}";
    let from_files = format!("{start}data: {data}\nmodalities:{rest}");
    std::fs::write(folder.path().join("files.yaml"), from_files).expect("a job file");
    let made = run_to_end(folder.path(), &["run", "job.yaml"]);
    let read = run_to_end(folder.path(), &["run", "files.yaml"]);
    assert!(made["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{made}");
    assert_eq!((&made["digest"], &made["evaluation"]), (&read["digest"], &read["evaluation"]));
}

#[test]
fn a_data_set_is_replaced_only_when_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let command = ["data", "synth", "features", "new/vectors", "--train", "40", "--validation", "0", "--test", "10"];
    let (code, told, _) = text(folder.path(), &command);
    assert_eq!(code, Some(0));
    assert!(told.contains("antiphon run job.yaml") && told.contains("antiphon data inspect 'new/vectors/*.parquet'"));
    std::fs::write(folder.path().join("job.yaml"), proposed(&told)).expect("a job file");
    let finished = run_to_end(folder.path(), &["run", "job.yaml", "--set", "schedule={turns: 2}"]);
    assert_eq!(finished["evaluation"]["modalities"]["a"]["samples"], 10, "{finished}");

    // The job can also be written to a file. With --force, that file is replaced, too.
    let saved = |command: &[&str]| text(folder.path(), &[command, &["--job", "saved.yaml"]].concat());
    let (code, told, _) = saved(&["data", "synth", "features", "others", "--train", "40"]);
    assert!(code == Some(0) && told.contains("The job saved.yaml trains on them: antiphon run saved.yaml\n"), "{told}");
    run_to_end(folder.path(), &["run", "saved.yaml", "--set", "schedule={turns: 2}"]);
    let (code, _, complaint) = saved(&["data", "synth", "features", "more"]);
    assert_eq!((code, complaint.as_str()), (Some(2), "error: `saved.yaml` already exists; --force overwrites it\n"));
    assert!(!folder.path().join("more").exists(), "no data are generated before");
    assert_eq!(saved(&["data", "synth", "features", "others", "--train", "40", "--force"]).0, Some(0));

    let (code, _, complaint) = text(folder.path(), &command);
    let message = "error: `new/vectors/test.parquet` already exists; use --force to replace the data set, or name \
                   another folder\n";
    assert_eq!((code, complaint.as_str()), (Some(2), message));
    let replaced = [&command[..], &["--force", "--rows-per-shard", "25"]].concat();
    assert_eq!(text(folder.path(), &replaced).0, Some(0));
    let shards = ["test-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"];
    assert_eq!(names(&folder.path().join("new/vectors")), shards);
}

#[test]
fn what_cannot_be_generated_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |options: &[&str]| text(folder.path(), &[&["data", "synth", "features", "x"], options].concat());
    let (code, _, complaint) = refused(&["--missing", "60%"]);
    assert_eq!(code, Some(2));
    assert!(
        complaint.contains("every sample keeps one of its 2 columns, so use a number from 0 to 0.500"),
        "{complaint}"
    );
    for options in [["--train", "0"], ["--missing", "1"], ["--missing", "much"], ["--rows-per-shard", "0"]] {
        assert_eq!(refused(&options).0, Some(2), "{options:?}");
    }
    assert!(!folder.path().join("x").exists());
}

#[test]
fn an_interrupt_leaves_no_half_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut program = antiphon(folder.path(), &["data", "synth", "spoken-digits", ".", "--train", "1000000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let started = || names(folder.path()).iter().any(|name| name.ends_with(".part"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        while !started() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let interrupt = std::process::Command::new("kill").args(["-INT", &program.id().to_string()]).status();
    assert!(interrupt.expect("kill is there").success());
    assert_eq!(program.wait().expect("it ends").code(), Some(130));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn files_are_looked_into() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(text(folder.path(), &SMALL_DATA).0, Some(0));
    let (code, told, _) = text(folder.path(), &["data", "inspect", "digits/*.parquet"]);
    assert_eq!(code, Some(0));
    for expected in [
        "5 files",
        "240 rows",
        "ClassLabel(10 names)",
        "Audio(sampling_rate=8000)",
        "label: 10 classes",
        "id: no id occurs twice",
        "PNG, 28 × 28 pixels",
        "WAV, 8000 Hz",
    ] {
        assert!(told.contains(expected), "`{expected}` is not in\n{told}");
    }
    let (code, lines) = json_lines(folder.path(), &["data", "inspect", "digits/train-*.parquet", "--samples", "1"]);
    let [found] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((code, &found["event"]), (Some(0), &"inspected".into()));
    let table = &found["tables"][0];
    assert_eq!((&table["rows"], &table["samples"][0]["values"][0]["text"]), (&150.into(), &"train-000000".into()));
    let classes = table["labels"]["classes"].as_array().expect("classes");
    assert!(classes.iter().all(|class| class["rows"] == 15), "{classes:?}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("notes.parquet"), "these are notes").expect("a writable folder");
    std::fs::create_dir(folder.path().join("digits")).expect("a writable folder");
    for (file, message) in [
        ("digits", "it is a folder, whose files are named by `digits/*.parquet`"),
        ("notes.parquet", "is not a Parquet file; convert it"),
        ("missing.parquet", "put the files there or correct the path"),
        ("ftp://host/x.parquet", "`ftp` is not a supported scheme"),
    ] {
        let (code, _, complaint) = text(folder.path(), &["data", "inspect", file]);
        assert_eq!(code, Some(2), "{complaint}");
        assert!(complaint.contains(message), "{complaint}");
        let (code, lines) = json_lines(folder.path(), &["data", "inspect", file]);
        assert_eq!((code, &lines[0]["event"]), (Some(2), &"error".into()));
    }
}
