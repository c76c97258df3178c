//! How programs end.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::message::full_message;

/// Why a program ended; the number is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Success = 0,
    /// The job failed, or the program did.
    Failed = 1,
    /// The command line, the job file or the data are wrong.
    Usage = 2,
    /// The coordinator or a store could not be reached.
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

/// Prints an error to standard error, in one line, and returns the exit code.
#[must_use]
pub fn failed(error: &(dyn Error + 'static), exit: Exit) -> ExitCode {
    // Standard error may be closed; the exit code remains.
    let _ = writeln!(io::stderr().lock(), "error: {}", full_message(error));
    exit.into()
}
