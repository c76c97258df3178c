//! The exit codes of all programs.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::message::full_message;

/// Why a program ended. The number is its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Success = 0,
    /// The job or the program failed.
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

impl Exit {
    /// Every way to end, in the order of the codes.
    pub const ALL: [Self; 6] =
        [Self::Success, Self::Failed, Self::Usage, Self::Unreachable, Self::TimedOut, Self::Interrupted];

    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The meaning, for the reference page.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "The command did what it was asked to do. A job reached its planned length.",
            Self::Failed => "The job failed, or the command failed.",
            Self::Usage => "The command line, the job file, the data or the checkpoint is invalid.",
            Self::Unreachable => "The coordinator, or a store to read from, could not be reached.",
            Self::TimedOut => "A time limit that the user set was reached.",
            Self::Interrupted => "Ctrl-C or SIGTERM interrupted the command, or the job was stopped before its end.",
        }
    }

    /// What to do about it, for the reference page.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Success => "Nothing.",
            Self::Failed => "Read the error. For a job on a coordinator, `antiphon jobs JOB` shows the reason.",
            Self::Usage => "Correct what the error names. The same command would fail again.",
            Self::Unreachable => "Check the address and the network, then run the command again.",
            Self::TimedOut => "Raise the limit. A job on a coordinator continues: `antiphon follow JOB` shows it.",
            Self::Interrupted => "Resume the job from its newest checkpoint with `--resume`.",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Prints an error to standard error, in one line, and returns the exit code.
#[must_use]
pub fn failed(error: &(dyn Error + 'static), exit: Exit) -> ExitCode {
    // Standard error may be closed; the exit code remains.
    let _ = writeln!(io::stderr().lock(), "error: {}", full_message(error));
    exit.into()
}
