//! How programs end.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::in_words;

/// Why a program ended; the number is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// The job failed, or the program did.
    Failed = 1,
    /// The command line, the job file or the data are not right.
    Usage = 2,
    /// The coordinator could not be reached, or a store that was to be read.
    Unreachable = 3,
    /// A time limit that the user set was reached.
    TimedOut = 4,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Says what went wrong on standard error, in one line; the exit code of a program that ends with it.
#[must_use]
pub fn failed(error: &(dyn Error + 'static), exit: Exit) -> ExitCode {
    // Nobody may be there to read it; the exit code still speaks.
    let _ = writeln!(io::stderr().lock(), "error: {}", in_words(error));
    exit.into()
}
