//! What happened in a simulation, line by line: the report of a bug, with the seed.

use std::fmt;

use antiphon_core::ids::{Turn, TurnRef, WorkerId};
use antiphon_core::time::Time;

use crate::report::{Digest, digest_of};
use crate::worker::{ToCoordinator, ToWorker};

/// Lines shown of a long trace: the last ones.
const SHOWN: usize = 40;

/// A line per event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    lines: Vec<String>,
}

impl Trace {
    pub(crate) fn heard(&mut self, now: Time, worker: &WorkerId, message: &ToCoordinator) {
        self.line(now, &format!("coordinator hears {worker}: {}", Said(message)));
    }

    pub(crate) fn refused(&mut self, now: Time, worker: &WorkerId, reason: &str) {
        self.line(now, &format!("coordinator refuses what seems to be of {worker}: {reason}"));
    }

    pub(crate) fn written(&mut self, now: Time, turn: Turn) {
        self.line(now, &format!("checkpoint {turn} exists"));
    }

    pub(crate) fn reached(&mut self, now: Time, worker: &WorkerId, message: &ToWorker) {
        let what = match message {
            ToWorker::Assign => "assigned".to_owned(),
            ToWorker::Grant { turn, .. } => format!("granted {}", Step(turn)),
            ToWorker::Evaluate { evaluation, split, .. } => format!("evaluation {evaluation} of {split}"),
            ToWorker::SavePart { turn } => format!("part of checkpoint {turn}"),
        };
        self.line(now, &format!("{worker} has a message: {what}"));
    }

    pub(crate) fn said(&mut self, now: Time, worker: &WorkerId, message: &ToCoordinator) {
        self.line(now, &format!("{worker} says: {}", Said(message)));
    }

    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }

    pub(crate) fn digest(&self) -> Digest {
        digest_of(&self.lines.join("\n"))
    }

    fn line(&mut self, now: Time, what: &str) {
        self.lines.push(format!("{:>10} {what}", now.0));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.lines.len().saturating_sub(SHOWN);
        if from > 0 {
            writeln!(f, "({from} lines before)")?;
        }
        self.lines[from..].iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

struct Step<'a>(&'a TurnRef);

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turn {} step {} of head {}", self.0.turn, self.0.step, self.0.head_version)
    }
}

/// A worker's message in a few words.
pub(crate) struct Said<'a>(pub(crate) &'a ToCoordinator);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ToCoordinator::Join { .. } => write!(f, "joins"),
            ToCoordinator::Prepared { samples, .. } => write!(f, "prepared, {} samples", samples.train),
            ToCoordinator::Contribution { turn, contribution, .. } => {
                write!(f, "contribution to {}, loss {}", Step(turn), contribution.loss)
            }
            ToCoordinator::Learned { turn } => write!(f, "learned {}", Step(turn)),
            ToCoordinator::Evaluated { evaluation, logits } => {
                write!(f, "evaluation {evaluation}, {} samples", logits.len())
            }
            ToCoordinator::PartSaved { turn, part } => write!(f, "part of checkpoint {turn} is {part:?}"),
        }
    }
}
