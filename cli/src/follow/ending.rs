//! The end of following a job, the effect of Ctrl-C, and the command that resumes the job.

use antiphon_core::event::{FinalState, Finished};
use antiphon_core::ids::Turn;
use antiphon_core::spec::Length;

use crate::exit::Exit;
use crate::output::{counted, quoted};

/// The effect of Ctrl-C on the job, and the command that resumes the job once it has stopped or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnInterrupt {
    /// The job stops at the next turn boundary. The command resumes it.
    Stop(String),
    /// The job keeps running. The command, followed by a checkpoint, resumes the job.
    Leave(String),
}

/// How following a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// The job has ended.
    ToItsEnd(FinalState),
    /// Ctrl-C ended the output first.
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

/// Whether the job has turns left and a checkpoint to resume from.
pub(super) fn can_resume(finished: &Finished) -> bool {
    finished.state != FinalState::Succeeded && finished.checkpoint.is_some()
}

impl OnInterrupt {
    /// The command that resumes a job that has ended, if the job can resume.
    pub(super) fn resume_command(&self, finished: &Finished) -> Option<String> {
        let checkpoint = finished.checkpoint.as_deref().filter(|_| can_resume(finished))?;
        Some(match self {
            Self::Stop(command) => command.clone(),
            Self::Leave(command) => format!("{command} {}", quoted(checkpoint)),
        })
    }
}

/// The message about a job that resumes from a checkpoint at `turn`, but has only `turns` turns.
pub(super) fn nothing_left(turn: Turn, turns: u64, length: Length) -> String {
    let (key, asked, more) = match length {
        Length::Turns(asked) => ("schedule.turns", counted(asked, "turn"), turn.0.saturating_add(asked.max(1))),
        Length::Epochs(asked) => {
            let so_far = asked.saturating_mul(turn.0.div_ceil(turns.max(1)));
            let epochs = counted(asked, "epoch");
            let asked_turns = if turn.0 == turns { format!(" ({})", counted(turns, "turn")) } else { String::new() };
            ("schedule.epochs", format!("{epochs}{asked_turns}"), so_far.saturating_add(asked.max(1)))
        }
    };
    format!(
        "nothing is left to train: the checkpoint is at turn {turn}, and the job asks for {asked}; to train further, raise \
         `{key}` in the job file, or pass for example --set {key}={more}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_without_turns_left_says_how_to_train_further() {
        let cases = [
            (60, 60, Length::Epochs(2), "turn 60, and the job asks for 2 epochs (60 turns);", "schedule.epochs=4"),
            (60, 31, Length::Epochs(1), "turn 60, and the job asks for 1 epoch;", "schedule.epochs=3"),
            (60, 40, Length::Turns(40), "turn 60, and the job asks for 40 turns;", "schedule.turns=100"),
        ];
        for (turn, turns, length, said, remedy) in cases {
            let text = nothing_left(Turn(turn), turns, length);
            assert!(text.contains(said) && text.ends_with(&format!("--set {remedy}")), "{text}");
        }
    }
}
