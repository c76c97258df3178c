//! What happened in a simulation, line by line: the report of a bug, with the seed.

use std::fmt;

use antiphon_core::ids::{Term, Turn, TurnRef, WorkerId};
use antiphon_core::time::Time;

use crate::coordinator::{Coordinator, Inbound, Refusal};
use crate::playback::Recording;
use crate::report::{Digest, digest_of};
use crate::worker::{ToCoordinator, ToWorker};

/// Lines shown of a long trace: the last ones.
const SHOWN: usize = 40;

/// A log with one line per event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    lines: Vec<String>,
    /// The coordinator's inputs and their effects, for a file that can be played back.
    recording: Option<Recording>,
}

impl Trace {
    /// A trace that can be played back.
    pub(crate) fn recording() -> Self {
        Self { recording: Some(Recording::default()), ..Self::default() }
    }

    pub(crate) fn take_recording(&mut self) -> Option<Recording> {
        self.recording.take()
    }

    /// Records an input of the coordinator.
    pub(crate) fn record(
        &mut self,
        now: Time,
        inbound: &Inbound,
        coordinator: &mut Coordinator,
        taken: &Result<(), Refusal>,
    ) {
        let effects = std::mem::take(&mut coordinator.effects);
        if let Some(recording) = &mut self.recording {
            recording.looked_at(now, inbound, effects, taken);
        }
    }

    pub(crate) fn begins(&mut self, now: Time, term: Term, from: Option<Turn>) {
        self.line(now, &format!("the coordinator of term {term} begins from checkpoint {from:?}"));
        if let Some(recording) = &mut self.recording {
            recording.begins(now, term, from);
        }
    }

    pub(crate) fn stored(&mut self, now: Time, term: Term, turn: Turn) {
        self.line(now, &format!("checkpoint {turn} exists, written in term {term}"));
        if let Some(recording) = &mut self.recording {
            recording.stored(turn);
        }
    }

    pub(crate) fn note(&mut self, now: Time, what: &str) {
        self.line(now, &format!("FAULT: {what}"));
    }

    pub(crate) fn looks_at(&mut self, now: Time, inbound: &Inbound) {
        match inbound {
            Inbound::Says { worker, message } => {
                self.line(now, &format!("coordinator hears {worker}: {}", Said(message)));
            }
            other => self.line(now, &format!("coordinator looks at {other:?}")),
        }
    }

    pub(crate) fn refused(&mut self, now: Time, worker: &WorkerId, reason: &str) {
        self.line(now, &format!("coordinator refuses what seems to be of {worker}: {reason}"));
    }

    pub(crate) fn reached(&mut self, now: Time, worker: &WorkerId, message: &ToWorker) {
        let what = match message {
            ToWorker::Assign { term, restore } => format!("assigned in term {term}, from checkpoint {restore:?}"),
            ToWorker::Grant { turn, replay: true, .. } => format!("replay granted {}", Step(turn)),
            ToWorker::Grant { turn, .. } => format!("granted {}", Step(turn)),
            ToWorker::Evaluate { evaluation, split, .. } => format!("evaluation {evaluation} of {split}"),
            ToWorker::SaveFiles { turn, .. } => format!("asked for the files of checkpoint {turn}"),
            ToWorker::Release => "released".to_owned(),
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
        let TurnRef { term, turn, step, attempt, head_version, .. } = self.0;
        write!(f, "turn {turn} step {step} of head {head_version}, term {term}, attempt {attempt}")
    }
}

/// A worker's message in a few words.
pub(crate) struct Said<'a>(pub(crate) &'a ToCoordinator);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ToCoordinator::Heartbeat { progress, busy } => write!(f, "alive, {progress} done, busy: {busy}"),
            ToCoordinator::Prepared { samples, steps_done, .. } => {
                write!(f, "prepared, {} samples, {steps_done} steps", samples.train)
            }
            ToCoordinator::Failed { reason, .. } => write!(f, "failed: {reason}"),
            ToCoordinator::Leaving { .. } => write!(f, "asked to stop"),
            ToCoordinator::Released => write!(f, "released"),
            ToCoordinator::Contribution { turn, contribution, .. } => {
                write!(f, "contribution to {}, loss {}", Step(turn), contribution.loss)
            }
            ToCoordinator::Learned { turn } => write!(f, "learned {}", Step(turn)),
            ToCoordinator::Evaluated { evaluation, logits, .. } => {
                write!(f, "evaluation {evaluation}, {} samples", logits.len())
            }
            ToCoordinator::FilesSaved { turn, digest, .. } => write!(f, "files of checkpoint {turn} are {digest:?}"),
        }
    }
}
