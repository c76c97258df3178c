//! The output of the runs: lines of text or JSON, and a file with every fault.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::follower::JobProgress;
use crate::lab::fault::{Kind, Victim};
use crate::output::{self, Format};

/// One line of the output. Times are in seconds since the run started.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    /// The baseline run has finished.
    Baseline { digest: &'a str, seconds: f64 },
    /// A run starts.
    RunStarted { seed: u64, job: &'a str, folder: String },
    /// A fault starts.
    Fault { seed: u64, at: f64, turn: u64, turns: u64, kind: Kind, victim: &'a Victim, lasts: f64 },
    /// A fault has ended.
    FaultEnded { seed: u64, at: f64, turn: u64, turns: u64, kind: Kind, victim: &'a Victim },
    /// A process exited by itself and is restarted.
    ProcessExited { seed: u64, at: f64, turn: u64, turns: u64, victim: &'a Victim, status: String },
    /// A run has finished.
    RunFinished {
        seed: u64,
        outcome: &'static str,
        reason: Option<String>,
        turn: u64,
        turns: u64,
        digest: Option<&'a str>,
        expected: &'a str,
        seconds: f64,
        faults: &'a BTreeMap<String, u64>,
        process_exits: u64,
    },
}

impl Line<'_> {
    /// The line as text.
    fn text(&self) -> String {
        match self {
            Self::Baseline { digest, seconds } => format!("baseline: {digest} after {seconds:.1} s"),
            Self::RunStarted { seed, job, folder } => format!("seed {seed}: job {job}, in {folder}"),
            Self::Fault { at, turn, turns, kind, victim, lasts, .. } => {
                let until = if *kind == Kind::Disconnect { String::new() } else { format!(" for {lasts:.1} s") };
                format!("{at:8.1} s  turn {turn}/{turns}  {kind} {victim}{until}")
            }
            Self::FaultEnded { at, turn, turns, kind, victim, .. } => {
                format!("{at:8.1} s  turn {turn}/{turns}  {kind} {victim} has ended")
            }
            Self::ProcessExited { at, turn, turns, victim, status, .. } => {
                format!("{at:8.1} s  turn {turn}/{turns}  the {victim} exited ({status}) and is restarted")
            }
            Self::RunFinished {
                seed,
                outcome,
                reason,
                turn,
                turns,
                digest,
                expected,
                seconds,
                faults,
                process_exits,
            } => {
                let reason = reason.as_ref().map(|reason| format!(", at turn {turn}/{turns}: {reason}"));
                let (reason, outcome) = (reason.unwrap_or_default(), outcome.replace('_', " "));
                let counted: Vec<String> = faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
                let counted = if counted.is_empty() { "none".to_owned() } else { counted.join(", ") };
                let digest = digest.unwrap_or("none");
                format!(
                    "seed {seed}: {outcome} after {seconds:.1} s{reason}\n  faults: {counted}; processes that exited: \
                     {process_exits}\n  digest {digest}, baseline {expected}"
                )
            }
        }
    }

    /// Whether the line is also printed as text.
    fn is_for_people(&self) -> bool {
        !matches!(self, Self::FaultEnded { .. })
    }
}

/// The destinations of lines.
#[derive(Debug)]
pub(super) struct Report {
    format: Format,
    trace: Option<File>,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self { format, trace: None }
    }

    /// Also writes every later line to this file.
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

/// A time in a run, with the progress of the job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) seed: u64,
    pub(super) at: Duration,
    pub(super) progress: JobProgress,
}

impl Moment {
    pub(super) fn fault<'a>(&self, kind: Kind, victim: &'a Victim, lasts: Duration) -> Line<'a> {
        let JobProgress { turn, turns, .. } = self.progress;
        let (at, lasts) = (self.at.as_secs_f64(), lasts.as_secs_f64());
        Line::Fault { seed: self.seed, at, turn, turns, kind, victim, lasts }
    }

    pub(super) fn fault_ended<'a>(&self, kind: Kind, victim: &'a Victim) -> Line<'a> {
        let JobProgress { turn, turns, .. } = self.progress;
        Line::FaultEnded { seed: self.seed, at: self.at.as_secs_f64(), turn, turns, kind, victim }
    }

    pub(super) fn process_exited<'a>(&self, victim: &'a Victim, status: String) -> Line<'a> {
        let JobProgress { turn, turns, .. } = self.progress;
        Line::ProcessExited { seed: self.seed, at: self.at.as_secs_f64(), turn, turns, victim, status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{PRINTED, Seen, check, unseen};

    #[test]
    fn every_line_is_in_the_reference() {
        let (seed, at, turn, turns, victim) = (1, 2.5, 3, 60, &Victim::Coordinator);
        let (kind, digest, faults) = (Kind::Kill, "sha256:00", BTreeMap::from([("kill coordinator".to_owned(), 1)]));
        let lines = [
            Line::Baseline { digest, seconds: 9.0 },
            Line::RunStarted { seed, job: "small", folder: "runs/small".to_owned() },
            Line::Fault { seed, at, turn, turns, kind, victim, lasts: 1.0 },
            Line::FaultEnded { seed, at, turn, turns, kind, victim },
            Line::ProcessExited { seed, at, turn, turns, victim, status: "exit status: 1".to_owned() },
            Line::RunFinished {
                seed,
                outcome: "hung",
                reason: Some("no step".to_owned()),
                turn,
                turns,
                digest: Some(digest),
                expected: digest,
                seconds: 9.0,
                faults: &faults,
                process_exits: 1,
            },
        ];
        let mut seen = Seen::new();
        for line in &lines {
            let line = serde_json::to_value(line).expect("JSON");
            check(&line, &mut seen)
                .unwrap_or_else(|reason| panic!("correct cli/src/reference/objects/chaos.rs: {reason}"));
        }
        let chaos = PRINTED.iter().filter(|printed| printed.by == "chaos").flat_map(|printed| printed.objects);
        assert_eq!(unseen(chaos, &seen), Seen::new(), "no line has these fields");
    }
}
