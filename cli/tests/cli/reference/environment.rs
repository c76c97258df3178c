//! `environment.md`: the variables of options, and variables that the code reads directly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use antiphon::reference::VARIABLES;
use clap::Command;

use super::{code, compare_or_update, page, root, sentence, table};

/// Options with a variable, by the name of the variable.
type Options = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

#[test]
fn the_page_of_the_environment_is_up_to_date() {
    let mut text =
        String::from("A variable of an option applies if the option is not given.\n\n## Variables of options\n\n");
    let rows = options().into_iter().map(|(variable, (names, meanings))| {
        let names: Vec<String> = names.iter().map(|name| code(name)).collect();
        // The help texts of one option differ slightly between commands; the shortest is used.
        let shortest = meanings.iter().min_by_key(|meaning| meaning.len()).map(|meaning| sentence(meaning));
        let meanings: Vec<String> = match meanings.len() {
            0..=2 => meanings.iter().map(|meaning| sentence(meaning)).collect(),
            _ => shortest.into_iter().collect(),
        };
        [code(&variable), names.join(", "), meanings.join(" ")]
    });
    text += &table(["Variable", "Option", "Meaning"], rows);
    for group in VARIABLES {
        text += &format!("\n## {}\n\n{}\n\n", group.subject, group.meaning);
        let rows = group
            .variables
            .iter()
            .map(|variable| [code(variable.name), variable.default.to_owned(), variable.meaning.to_owned()]);
        text += &table(["Variable", "Default", "Meaning"], rows);
    }
    text += "\n## Variables in job files\n\nText in a job file may contain `${NAME}`. The command that reads the file \
             (`run`, `check`, `submit`, `bench` or `chaos`) replaces it by the environment variable `NAME`.\n";
    compare_or_update(
        "environment.md",
        &page("Environment variables", "Antiphon reads the environment variables below.", &text),
    );
}

#[test]
fn every_variable_that_is_read_is_on_the_page() {
    let mut read = BTreeSet::new();
    let skipped = ["target", ".git", "docs", "shared"];
    sources(&root(), &skipped, &mut |text| read.extend(named(text)));
    assert!(read.contains("ANTIPHON_CACHE"), "the search finds what is read: {read:?}");
    let of_options = options();
    let known = |name: &str| {
        let listed = VARIABLES.iter().flat_map(|group| group.variables).any(|variable| variable.name == name);
        listed || of_options.contains_key(name)
    };
    let missing: Vec<&String> = read.iter().filter(|name| !known(name)).collect();
    assert!(missing.is_empty(), "not in cli/src/reference/environment.rs: {missing:?}");
    let ours = VARIABLES.iter().flat_map(|group| group.variables).map(|variable| variable.name.to_owned());
    let gone: Vec<String> = ours.filter(|name| name.starts_with("ANTIPHON_") && !read.contains(name)).collect();
    assert!(gone.is_empty(), "in cli/src/reference/environment.rs, but nothing reads them: {gone:?}");
}

/// The variables of options, with the options and their help texts.
fn options() -> Options {
    fn walk(command: &Command, options: &mut Options) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(variable) = argument.get_env() else { continue };
            let (names, meanings) = options.entry(variable.to_string_lossy().into_owned()).or_default();
            names.insert(format!("--{}", argument.get_long().unwrap_or_default()));
            meanings.extend(argument.get_help().map(ToString::to_string));
        }
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        shown.for_each(|command| walk(command, options));
    }
    let mut root = antiphon::command();
    root.build();
    let mut options = Options::new();
    walk(&root, &mut options);
    options
}

/// Reads every Rust file below a folder, except for folders of these names and the table of this page.
fn sources(folder: &Path, skipped: &[&str], read: &mut impl FnMut(&str)) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            if !skipped.contains(&name.as_str()) && !name.starts_with('.') {
                sources(&path, skipped, read);
            }
        } else if name.ends_with(".rs") && !path.ends_with("reference/environment.rs") {
            read(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The string literals of a source file that name a variable of this project.
fn named(text: &str) -> impl Iterator<Item = String> {
    text.split('"')
        .filter(|literal| literal.len() > "ANTIPHON_".len() && literal.starts_with("ANTIPHON_"))
        .filter(|literal| literal.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        .map(str::to_owned)
}
