//! Shows the violations that the checks of the repository find.
//!
//!     cargo run -p antiphon-testing-house                     all checks
//!     cargo run -p antiphon-testing-house -- words cli/       one check, of some paths only
//!     cargo run -p antiphon-testing-house -- rooms core       an order of a crate's rooms, to begin one with

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use antiphon_testing_house::repository::{self, File, Violation};
use antiphon_testing_house::{CHECKS, check, members, rooms};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = std::env::current_dir().ok().filter(|folder| folder.join("Cargo.lock").exists());
    match run(&arguments, &root.unwrap_or_else(repository::root)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(found) => {
            eprintln!("{found} violations");
            ExitCode::FAILURE
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// Runs a check, prints its violations and returns their number.
fn run(arguments: &[String], root: &Path) -> Result<usize, String> {
    let files = repository::files(root).map_err(|error| format!("the repository cannot be read: {error}"))?;
    let (name, paths) = arguments.split_first().map_or(("all", &[][..]), |(name, paths)| (name, paths));
    let found = match name {
        "rooms" => return order(paths, &files),
        "all" => {
            let found: Result<Vec<_>, _> = CHECKS.iter().map(|name| check(name, root, &files)).collect();
            found?.concat()
        }
        name => check(name, root, &files)?,
    };
    let wanted =
        |violation: &Violation| paths.is_empty() || paths.iter().any(|path| violation.path.starts_with(&**path));
    Ok(show(&found.into_iter().filter(wanted).collect::<Vec<_>>()))
}

/// Prints violations, and their number per file.
fn show(found: &[Violation]) -> usize {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    for violation in found {
        *counts.entry(&violation.path).or_default() += 1;
    }
    if counts.len() > 1 {
        lines.push(String::new());
        lines.extend(counts.iter().map(|(path, count)| format!("{count:5}  {path}")));
    }
    lines.push(String::new());
    // A reader such as `head` may close the pipe early, which is not a failure.
    let _ = std::io::stdout().write_all(lines.join("\n").as_bytes());
    found.len()
}

fn order(folders: &[String], files: &[File]) -> Result<usize, String> {
    for (folder, read) in members(files) {
        if !folders.is_empty() && !folders.contains(&folder) {
            continue;
        }
        println!("[{folder}]");
        match rooms::suggest(&folder, &read.rooms(), &read.imports()) {
            Some(layers) => layers.iter().for_each(|layer| println!("{}", layer.join(" "))),
            None => return Err(format!("the rooms of {folder} import each other in a circle")),
        }
        println!();
    }
    Ok(0)
}
