//! What is told of the runs: lines for people or programs, and a file with every fault.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::follower::Standing;
use crate::lab::fault::{Kind, Victim};
use crate::output::{self, Format};

/// One line. Times are in seconds since the run began.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    /// The job ran without faults.
    Peace { digest: &'a str, seconds: f64 },
    /// A run begins.
    Began { seed: u64, job: &'a str, folder: String },
    /// A fault.
    Fault { seed: u64, at: f64, turn: u64, turns: u64, kind: Kind, victim: &'a Victim, lasts: f64 },
    /// A fault is over.
    Over { seed: u64, at: f64, turn: u64, turns: u64, kind: Kind, victim: &'a Victim },
    /// A process ended without being killed; it is started again.
    EndedByItself { seed: u64, at: f64, turn: u64, turns: u64, victim: &'a Victim, status: String },
    /// A run is over.
    Ended {
        seed: u64,
        outcome: &'static str,
        reason: Option<String>,
        turn: u64,
        turns: u64,
        digest: Option<&'a str>,
        expected: &'a str,
        seconds: f64,
        faults: &'a BTreeMap<String, u64>,
        ended_by_itself: u64,
    },
}

impl Line<'_> {
    /// For people.
    fn text(&self) -> String {
        match self {
            Self::Peace { digest, seconds } => format!("in peace: {digest} after {seconds:.1} s"),
            Self::Began { seed, job, folder } => format!("seed {seed}: job {job}, in {folder}"),
            Self::Fault { at, turn, turns, kind, victim, lasts, .. } => {
                let until = if *kind == Kind::Cut { String::new() } else { format!(" for {lasts:.1} s") };
                format!("{at:8.1} s  turn {turn}/{turns}  {kind} {victim}{until}")
            }
            Self::Over { at, turn, turns, kind, victim, .. } => {
                format!("{at:8.1} s  turn {turn}/{turns}  {kind} {victim} is over")
            }
            Self::EndedByItself { at, turn, turns, victim, status, .. } => {
                format!("{at:8.1} s  turn {turn}/{turns}  the {victim} ended by itself ({status}) and is started again")
            }
            Self::Ended { seed, outcome, reason, turn, turns, digest, expected, seconds, faults, ended_by_itself } => {
                let reason =
                    reason.as_ref().map(|reason| format!(", at turn {turn}/{turns}: {reason}")).unwrap_or_default();
                let outcome = outcome.replace('_', " ");
                let counted: Vec<String> = faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
                let counted = if counted.is_empty() { "none".to_owned() } else { counted.join(", ") };
                let digest = digest.unwrap_or("none");
                format!(
                    "seed {seed}: {outcome} after {seconds:.1} s{reason}\n  faults: {counted}; {ended_by_itself} ends of \
                     processes by themselves\n  digest {digest}, in peace {expected}"
                )
            }
        }
    }

    /// Whether people are told of it, too.
    fn is_for_people(&self) -> bool {
        !matches!(self, Self::Over { .. })
    }
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct Report {
    format: Format,
    trace: Option<File>,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self { format, trace: None }
    }

    /// From now on everything is written to this file, too.
    pub(super) fn trace_to(&mut self, file: &Path) -> anyhow::Result<()> {
        self.trace = Some(File::create(file).with_context(|| format!("cannot write {}", file.display()))?);
        Ok(())
    }

    pub(super) fn tell(&mut self, line: &Line<'_>) -> anyhow::Result<()> {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{}", serde_json::to_string(line)?).context("cannot write the trace")?;
        }
        match self.format {
            Format::Json => output::json(line)?,
            Format::Text if line.is_for_people() => output::line(&line.text())?,
            Format::Text => {}
        }
        Ok(())
    }
}

/// A moment of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) seed: u64,
    pub(super) at: Duration,
    pub(super) standing: Standing,
}

impl Moment {
    pub(super) fn fault<'a>(&self, kind: Kind, victim: &'a Victim, lasts: Duration) -> Line<'a> {
        let Standing { turn, turns, .. } = self.standing;
        let (at, lasts) = (self.at.as_secs_f64(), lasts.as_secs_f64());
        Line::Fault { seed: self.seed, at, turn, turns, kind, victim, lasts }
    }

    pub(super) fn over<'a>(&self, kind: Kind, victim: &'a Victim) -> Line<'a> {
        let Standing { turn, turns, .. } = self.standing;
        Line::Over { seed: self.seed, at: self.at.as_secs_f64(), turn, turns, kind, victim }
    }

    pub(super) fn ended_by_itself<'a>(&self, victim: &'a Victim, status: String) -> Line<'a> {
        let Standing { turn, turns, .. } = self.standing;
        Line::EndedByItself { seed: self.seed, at: self.at.as_secs_f64(), turn, turns, victim, status }
    }
}
