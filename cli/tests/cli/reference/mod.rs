//! Generates the reference pages in `docs/src/reference/` from the code and compares them.
//! `UPDATE=1 cargo test -p antiphon --test cli reference::` writes them.

mod commands;
mod environment;
mod events;
mod exit_codes;
mod job_fields;

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A page: its title, its introduction, and its text.
fn page(title: &str, answers: &str, text: &str) -> String {
    format!(
        "# {title}\n\n{answers}\n\n*Generated from the code by `UPDATE=1 cargo test -p antiphon --test cli reference::`; do not edit \
         it here.*\n\n{}\n",
        text.trim()
    )
}

/// Compares a page with the one that is checked in, or writes it there.
fn compare_or_update(name: &str, wanted: &str) {
    let path = root().join("docs/src/reference").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, wanted).expect("the page is written");
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = wanted.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
    assert!(
        found == wanted,
        "docs/src/reference/{name} is out of date: run `UPDATE=1 cargo test -p antiphon --test cli reference::`; the \
         first difference is {differing:?}"
    );
}

/// A table in Markdown. Rows must have as many cells as the head.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String; N]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(str::to_owned)) + &line(&[(); N].map(|()| "---".to_owned()));
    for row in rows {
        text += &line(&row.map(|cell| cell.replace('|', "\\|").replace('\n', " ").trim().to_owned()));
    }
    text
}

/// Text as inline code; empty if the text is empty.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Turns text into a sentence: capitalised, unless it begins with a symbol, and with a full stop.
fn sentence(text: &str) -> String {
    let text = text.trim();
    let is_word = text.chars().take_while(char::is_ascii_lowercase).count() > 1;
    let (first, rest) = text.split_at(usize::from(is_word));
    let stop = if text.is_empty() || text.ends_with(['.', '?', '!', ':']) { "" } else { "." };
    format!("{}{rest}{stop}", first.to_uppercase())
}
