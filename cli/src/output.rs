//! The two output formats, and the only code that writes to standard output.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Human-readable text
    #[default]
    Text,
    /// One JSON object per line, for programs
    Json,
}

/// Writes one line to standard output.
///
/// # Errors
/// Standard output is closed, for example because a reader such as `head` has exited.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes one JSON object as a line.
///
/// # Errors
/// Standard output is closed.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string(value).map_err(io::Error::other)?)
}

/// The width of the terminal in columns; None if standard output is not a terminal.
pub(crate) fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// The name that this program was started by, for commands that are printed. A program with its own encoders is not
/// called `antiphon`.
pub(crate) fn program() -> String {
    let first = std::env::args_os().next();
    let name = first.as_ref().and_then(|path| Path::new(path).file_name()).and_then(|name| name.to_str());
    quoted(name.unwrap_or("antiphon"))
}

/// Quotes the text for a shell, if necessary.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Writes one line to standard error.
///
/// # Errors
/// Standard error is closed.
pub fn complain(text: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    err.write_all(text.as_bytes())?;
    err.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_typed() {
        for (text, typed) in [("a/b-1.yaml", "a/b-1.yaml"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(quoted(text), typed);
        }
    }
}
