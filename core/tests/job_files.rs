//! The messages for wrong job files: every `job_files/*.yaml` has its expected message beside it.
//!
//! Lines `# set: a.b=c` and `# variable: NAME=value` at the head of a file are overrides and variables.
//! `UPDATE=1 cargo test -p antiphon-core --test job_files` writes the expected messages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use antiphon_core::spec::{Override, parse};

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/job_files");
    let entries = fs::read_dir(&folder).expect("the folder of cases");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn message(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a case");
    let given = |what: &'static str| text.lines().filter_map(move |line| line.strip_prefix(what));
    let overrides: Vec<Override> = given("# set: ").map(Override::from).collect();
    let variables: BTreeMap<&str, &str> = given("# variable: ").filter_map(|line| line.split_once('=')).collect();
    let lookup = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    match parse(&text, "job.yaml", &overrides, &lookup) {
        Ok(_) => panic!("{} was taken", path.display()),
        Err(errors) => format!("{errors}\n"),
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the person who runs the test decides whether the expected messages are written"
)]
fn every_message_is_as_it_was_reviewed() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    for path in cases() {
        let (message, golden) = (message(&path), path.with_extension("txt"));
        if update {
            fs::write(&golden, &message).expect("the message is written");
        }
        if fs::read_to_string(&golden).ok().as_ref() != Some(&message) {
            differing.push(format!("{}:\n{message}", golden.display()));
        }
    }
    assert!(differing.is_empty(), "messages differ; see whether they got better\n\n{}", differing.join("\n"));
}

#[test]
fn every_error_has_a_location_and_says_what_to_do() {
    let cases = cases();
    assert!(cases.len() >= 20);
    for path in cases {
        for line in message(&path).lines() {
            assert!(line.starts_with("job.yaml:") || line.starts_with("--set "), "{}: {line}", path.display());
        }
    }
}
