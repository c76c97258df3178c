//! The files of the repository.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One file of the repository.
#[derive(Clone, Debug)]
pub struct File {
    /// Path from the root of the repository, with `/` between folders.
    pub path: String,
    /// The content; empty if it is not UTF-8.
    pub text: String,
}

impl File {
    /// Creates a file that is not on disk, for tests.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Whether the file's name ends in this extension, which includes the dot.
    pub fn has_extension(&self, extension: &str) -> bool {
        self.path.ends_with(extension)
    }
}

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file below `root`, sorted by path, except for build output and hidden folders other than `.ci` and `.github`.
///
/// # Errors
///
/// A folder or a file cannot be read.
pub fn files(root: &Path) -> io::Result<Vec<File>> {
    let mut found = Vec::new();
    collect(root, "", &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<File>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !is_left_out(&path, &entry.path()) {
                collect(&entry.path(), &format!("{path}/"), found)?;
            }
        } else if kind.is_file() {
            found.push(File { path, text: String::from_utf8(fs::read(entry.path())?).unwrap_or_default() });
        }
    }
    Ok(())
}

/// Build output is recognised by cargo's tag file; mdBook's output is `docs/book`.
fn is_left_out(path: &str, folder: &Path) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let hidden = name.starts_with('.') && !matches!(path, ".ci" | ".github");
    hidden || matches!(path, "target" | "docs/book") || folder.join("CACHEDIR.TAG").exists()
}

/// A violation that a check found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path of the file from the root of the repository.
    pub path: String,
    /// Line number, from 1; 0 for the whole file.
    pub line: usize,
    /// A message that says what is wrong and what to do.
    pub message: String,
}

impl Violation {
    /// Creates a violation in one line of a file.
    pub fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}
