//! Checks of the repository itself: imports, lengths, retired words and documents. Each violation names file and line.
//!
//! [`modules`], [`circles`], [`rooms`] and [`crates`] check imports. `cargo test` runs all checks on this repository,
//! and `cargo run -p antiphon-testing-house -- CHECK` shows the violations of one check.

pub mod circles;
pub mod crates;
pub mod documents;
pub mod lexer;
pub mod markdown;
pub mod modules;
pub mod repository;
pub mod rooms;
pub mod sizes;
pub mod words;

use std::path::Path;

use repository::{File, Violation};

/// The names of all checks.
pub const CHECKS: &[&str] = &["imports", "crates", "sizes", "words", "documents"];

/// Runs one of [`CHECKS`] on the repository at `root`.
///
/// # Errors
///
/// A list cannot be read, or there is no such check.
pub fn check(name: &str, root: &Path, files: &[File]) -> Result<Vec<Violation>, String> {
    match name {
        "imports" => imports(files),
        "crates" => arrows(root, files),
        "sizes" => Ok(sizes::check(files)),
        "words" => {
            let words = words::Words::parse(&list("words.txt", files)?, &list("words-allowed.txt", files)?);
            Ok(words.map_err(|line| format!("not a line of a list of words: {line}"))?.check(files))
        }
        "documents" => Ok(documents::check(files)),
        _ => Err(format!("there is no check `{name}`; the checks are: {}", CHECKS.join(", "))),
    }
}

fn list(name: &str, files: &[File]) -> Result<String, String> {
    let path = format!("testing/house/{name}");
    let file = files.iter().find(|file| file.path == path);
    file.map(|file| file.text.clone()).ok_or_else(|| format!("{path} is not there"))
}

fn orders(files: &[File]) -> Result<rooms::Orders, String> {
    Ok(rooms::Orders::parse(&list("rooms.txt", files)?))
}

fn imports(files: &[File]) -> Result<Vec<Violation>, String> {
    let orders = orders(files)?;
    let allowed = circles::Allowed::parse(&list("circles.txt", files)?);
    let allowed = allowed.map_err(|line| format!("circles.txt: no reason in: {line}"))?;
    let mut violations = Vec::new();
    let mut all = Vec::new();
    for (folder, read) in members(files) {
        let imports = read.imports();
        violations.extend(rooms::check(&folder, &read.modules(), &imports, &orders));
        all.extend(imports);
    }
    violations.extend(circles::check(&all, &allowed));
    Ok(violations)
}

/// The root files of the workspace's members: the library, or the program if there is no library.
pub fn members(files: &[File]) -> Vec<(String, modules::Crate)> {
    let read = |folder: String| {
        let library = format!("{folder}/src/lib.rs");
        let program = format!("{folder}/src/main.rs");
        let root = if files.iter().any(|file| file.path == library) { library } else { program };
        (folder, modules::Crate::read(&root, files))
    };
    crates::manifests(files).into_iter().map(|manifest| read(manifest.folder)).collect()
}

fn arrows(root: &Path, files: &[File]) -> Result<Vec<Violation>, String> {
    let orders = orders(files)?;
    let mut violations = crates::check(&crates::manifests(files), &orders);
    for name in orders.section(crates::NO_WIRE).into_iter().flatten().flatten() {
        for found in crates::wire_below(root, name)? {
            let message = format!("`{name}` is built from `{found}`, and knows no wire");
            violations.push(Violation::new(rooms::FILE, 0, message));
        }
    }
    Ok(violations)
}
