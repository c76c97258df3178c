//! The two output formats, and the only code that writes to standard output.

use std::io::{self, Write};

use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Text for people
    #[default]
    Text,
    /// One JSON object per line, for programs
    Json,
}

/// Writes one line to standard output.
///
/// # Errors
/// Standard output is closed, as it is when a reader such as `head` has seen enough.
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

/// Writes one line to standard error.
///
/// # Errors
/// Standard error is closed.
pub fn complain(text: &str) -> io::Result<()> {
    let mut err = io::stderr().lock();
    err.write_all(text.as_bytes())?;
    err.write_all(b"\n")
}
