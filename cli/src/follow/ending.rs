//! How following a job ends, and what Ctrl-C does.

use antiphon_core::event::{FinalState, Finished};

use crate::exit::Exit;

/// What Ctrl-C does to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnInterrupt {
    /// The job stops at the next turn boundary. This command resumes it then, or after a failure.
    Stop(String),
    /// The job keeps running.
    Leave,
}

/// How following a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The job has ended.
    ToItsEnd(FinalState),
    /// Ctrl-C ended it first.
    Interrupted,
}

impl From<Followed> for Exit {
    fn from(followed: Followed) -> Self {
        match followed {
            Followed::ToItsEnd(FinalState::Succeeded) => Self::Success,
            Followed::ToItsEnd(FinalState::Failed) => Self::Failed,
            Followed::ToItsEnd(FinalState::Stopped) | Followed::Interrupted => Self::Interrupted,
        }
    }
}

/// Whether turns are left, and a checkpoint to resume from.
pub(super) fn can_resume(finished: &Finished) -> bool {
    finished.state != FinalState::Succeeded && finished.checkpoint.is_some()
}
