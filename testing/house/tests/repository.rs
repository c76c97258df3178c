//! The checks on this repository.

use antiphon_testing_house::{check, repository};

fn assert_clean(name: &str) {
    let root = repository::root();
    let files = repository::files(&root).expect("the repository can be read");
    let found = check(name, &root, &files).expect("the lists can be read");
    let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} found by `{name}`:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn no_file_imports_a_room_above_it_or_in_a_circle() {
    assert_clean("imports");
}

#[test]
fn no_crate_needs_one_above_it_and_data_and_model_no_wire() {
    assert_clean("crates");
}

#[test]
fn nothing_is_too_long() {
    assert_clean("sizes");
}

#[test]
fn no_retired_word_is_in_use() {
    assert_clean("words");
}

#[test]
fn documents_lead_to_what_is_there() {
    assert_clean("documents");
}
