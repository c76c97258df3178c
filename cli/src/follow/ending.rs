//! How following a job ends, and what Ctrl-C has to do with it.

use antiphon_core::event::{FinalState, Finished};

use crate::exit::Exit;

/// What Ctrl-C means to the job, and the command that goes on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnInterrupt {
    /// It stops at the next turn boundary; afterwards, or where it fails, this command goes on with it.
    Stop(String),
    /// It goes on without being watched.
    Leave,
}

/// How following a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The job is over.
    ToItsEnd(FinalState),
    /// Somebody did not want to follow it any longer.
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

/// Whether there is something left to do, and a checkpoint to begin from.
pub(super) fn can_go_on(finished: &Finished) -> bool {
    finished.state != FinalState::Succeeded && finished.checkpoint.is_some()
}
