//! `commands.md`: every command with its arguments and options, from clap. (The crate `clap-markdown` writes similar
//! pages, but without environment variables, and without marking required options.)

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::{code, compare_or_update, page, sentence, table};

#[test]
fn the_page_of_commands_is_up_to_date() {
    let mut root = antiphon::command().disable_help_subcommand(true);
    root.build();
    let mut text = format!("```text\n{}\n```\n\n", usage(&root));
    text += &options(&root);
    text += "\n## All commands\n\n";
    text += &table(["Command", "Purpose"], rows(&root));
    for command in visible(&root) {
        describe(command, 2, &mut text);
    }
    compare_or_update(
        "commands.md",
        &page(
            "Commands",
            "`antiphon` has one command per task. This reference lists the arguments and options of each command.",
            &text,
        ),
    );
}

/// Checks that help texts have one line per paragraph: clap wraps lines, so a manual break would be an extra break.
#[test]
fn notes_are_wrapped_once_and_examples_fit_a_terminal() {
    fn walk(command: &Command, wrong: &mut Vec<String>) {
        let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let is_text = |line: &str| !line.is_empty() && !line.starts_with(' ');
        let lines: Vec<&str> = notes.lines().collect();
        let broken = lines.windows(2).filter(|pair| is_text(pair[0]) && is_text(pair[1])).map(|pair| pair[0]);
        let too_long = lines.iter().filter(|line| line.starts_with(' ') && line.chars().count() > 80).copied();
        wrong.extend(broken.chain(too_long).map(|line| format!("{}: {line}", name(command))));
        if !command.has_subcommands() && !notes.starts_with("Examples:\n  ") {
            wrong.push(format!("{}: no examples", name(command)));
        }
        visible(command).for_each(|command| walk(command, wrong));
    }
    let mut root = antiphon::command().disable_help_subcommand(true);
    root.build();
    let mut wrong = Vec::new();
    walk(&root, &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_option_has_an_empty_help_text() {
    fn walk(command: &Command, without: &mut Vec<String>) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if help(argument).is_empty() {
                without.push(format!("{} {}", command.get_bin_name().unwrap_or_default(), argument.get_id()));
            }
        }
        command.get_subcommands().for_each(|command| walk(command, without));
    }
    let mut root = antiphon::command();
    root.build();
    let mut without = Vec::new();
    walk(&root, &mut without);
    assert!(without.is_empty(), "{without:?}");
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn name(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// One row for each command.
fn rows(command: &Command) -> Vec<[String; 2]> {
    let mut rows = Vec::new();
    for command in visible(command) {
        if command.has_subcommands() {
            rows.extend(self::rows(command));
        } else {
            let name = name(command);
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            rows.push([format!("[`{name}`](#{})", name.replace(' ', "-")), sentence(&about)]);
        }
    }
    rows
}

fn describe(command: &Command, level: usize, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{} {}\n\n", "#".repeat(level), name(command));
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let paragraphs: Vec<String> =
        about.split("\n\n").map(|paragraph| sentence(&paragraph.replace('\n', " "))).collect();
    let _ = write!(text, "{}\n\n", paragraphs.join("\n\n"));
    if command.has_subcommands() {
        visible(command).for_each(|command| describe(command, level + 1, text));
        return;
    }
    let _ = write!(text, "```text\n{}\n```\n\n", usage(command));
    *text += &arguments(command);
    *text += &options(command);
    if let Some(more) = command.get_after_long_help().or(command.get_after_help()) {
        let lines: Vec<String> = more.to_string().trim().lines().map(wrapped).collect();
        let _ = write!(text, "\n```text\n{}\n```\n", lines.join("\n"));
    }
}

/// Wraps a line at 100 characters for a block of code.
fn wrapped(line: &str) -> String {
    let (mut text, mut width) = (String::new(), 0);
    for word in line.split_inclusive(' ') {
        let length = word.trim_end().chars().count();
        if width > 0 && width + length > 100 {
            text.truncate(text.trim_end().len());
            text.push('\n');
            width = 0;
        }
        text += word;
        width += word.chars().count();
    }
    text
}

fn usage(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage:").trim().to_owned()
}

fn arguments(command: &Command) -> String {
    let positional = command.get_positionals().filter(|argument| !argument.is_hide_set());
    let rows: Vec<[String; 3]> = positional
        .map(|argument| {
            let needed = if argument.is_required_set() { "required".to_owned() } else { default(argument) };
            [code(&argument.to_string()), needed, meaning(argument)]
        })
        .collect();
    if rows.is_empty() { String::new() } else { table(["Argument", "Default", "Meaning"], rows) + "\n" }
}

fn options(command: &Command) -> String {
    let inherited = |argument: &Arg| argument.is_global_set() && command.get_name() != "antiphon";
    let of_clap = |argument: &Arg| matches!(argument.get_id().as_str(), "help" | "version");
    let shown = command
        .get_arguments()
        .filter(|argument| !argument.is_positional() && !argument.is_hide_set())
        .filter(|argument| !inherited(argument) && !of_clap(argument));
    let rows: Vec<[String; 3]> = shown
        .map(|argument| {
            let needed = if argument.is_required_set() { "required".to_owned() } else { default(argument) };
            [flag(argument), needed, meaning(argument)]
        })
        .collect();
    if rows.is_empty() { String::new() } else { table(["Option", "Default", "Meaning"], rows) }
}

/// `` `--set <KEY=VALUE>` ``, after its short form if it has one.
fn flag(argument: &Arg) -> String {
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let values: String = match (argument.get_action().takes_values(), argument.get_value_names()) {
        (false, _) => String::new(),
        (true, Some(names)) => names.iter().map(|name| format!(" <{name}>")).collect(),
        (true, None) => format!(" <{}>", argument.get_id().as_str().to_uppercase()),
    };
    code(&format!("{}{values}", names.join(", ")))
}

/// The default value in clap, or else the one in brackets in the help text.
fn default(argument: &Arg) -> String {
    if let Some(told) = split_default(&help(argument)).1 {
        return told;
    }
    let defaults = argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned());
    let defaults: Vec<String> = defaults.collect();
    if argument.get_action().takes_values() { code(&defaults.join(",")) } else { String::new() }
}

fn help(argument: &Arg) -> String {
    argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default()
}

/// Splits a help text into the text and the default in brackets at its end.
fn split_default(help: &str) -> (String, Option<String>) {
    let help = help.replace('\n', " ");
    match help.split_once("[default:") {
        None => (help, None),
        Some((text, default)) => (text.trim().to_owned(), Some(default.trim().trim_end_matches(']').to_owned())),
    }
}

/// The help text, the possible values, and the environment variable of an option.
fn meaning(argument: &Arg) -> String {
    let mut text = sentence(&split_default(&help(argument)).0);
    if argument.get_action().takes_values() && !argument.is_hide_possible_values_set() {
        let values = argument.get_possible_values();
        let shown = values.iter().filter(|value| !value.is_hide_set()).map(|value| match value.get_help() {
            Some(help) => format!("`{}` ({})", value.get_name(), lower(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        });
        let shown: Vec<String> = shown.collect();
        if !shown.is_empty() {
            text += &format!(" Values: {}.", shown.join(", "));
        }
    }
    if let Some(variable) = argument.get_env() {
        text += &format!(" Environment: `{}`.", variable.to_string_lossy());
    }
    text
}

/// Help of a value as part of a sentence; a name keeps its capitals.
fn lower(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_name = word.chars().filter(|letter| letter.is_uppercase()).count() != 1;
    let first = text.chars().next().map_or(0, char::len_utf8);
    if is_name { text.to_owned() } else { text[..first].to_lowercase() + &text[first..] }
}
