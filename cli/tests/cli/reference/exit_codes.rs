//! `exit-codes.md`: the meaning of each exit code, in general and for single commands.

use antiphon::exit::Exit;
use clap::Command;

use super::{compare_or_update, page, table};

#[test]
fn the_page_of_exit_codes_is_up_to_date() {
    let rows =
        Exit::ALL.map(|exit| [format!("`{}`", exit.code()), exit.meaning().to_owned(), exit.advice().to_owned()]);
    let mut text = table(["Code", "Meaning", "What to do"], rows);
    text += "\nEvery command uses these codes. A command that fails prints one line with the reason to standard error, or with \
             `--format json` an object with `\"event\": \"error\"` to standard output.\n";
    text += "\n## Commands with more specific meanings\n";
    let mut root = antiphon::command();
    root.build();
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        if let Some(codes) = codes(command) {
            text += &format!("\n### antiphon {}\n\n{}", command.get_name(), table(["Code", "Meaning"], codes));
        }
    }
    compare_or_update(
        "exit-codes.md",
        &page("Exit codes", "The exit code of a command says why the command ended.", &text),
    );
}

#[test]
fn the_help_names_every_exit_code() {
    assert!(Exit::ALL.is_sorted_by_key(|exit| exit.code()), "no two share a code");
    let help = antiphon::command().get_after_help().map(ToString::to_string).unwrap_or_default();
    let codes = help.split_once("Exit codes:").map(|(_, codes)| codes.replace(',', " ")).unwrap_or_default();
    let codes: Vec<u8> = codes.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(codes, Exit::ALL.map(Exit::code));
}

/// The exit codes after `Exit codes:` in a command's help, with their meanings.
fn codes(command: &Command) -> Option<Vec<[String; 2]>> {
    let help = command.get_after_help()?.to_string();
    let paragraph = help.split("\n\n").find_map(|paragraph| paragraph.trim().strip_prefix("Exit codes:"))?;
    let mut codes: Vec<[String; 2]> = Vec::new();
    for item in paragraph.replace('\n', " ").split(',') {
        let item = item.trim();
        let number: String = item.chars().take_while(char::is_ascii_digit).collect();
        match codes.last_mut() {
            Some([_, meaning]) if number.is_empty() => *meaning += &format!(", {item}"),
            _ => codes.push([format!("`{number}`"), item[number.len()..].trim().to_owned()]),
        }
    }
    Some(codes)
}
