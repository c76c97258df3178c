//! `antiphon jobs`: the jobs of a coordinator, and the status of one.

mod yaml;

use antiphon_proto::v1::{JobState, JobStatus};
use antiphon_transport::ConnectArgs;
use anyhow::Context as _;
use chrono::{DateTime, Local};
use serde::Serialize;
use serde_json::Value;

use crate::client::{Client, ClientError};
use crate::exit::Exit;
use crate::output::{self, Format};

/// List the jobs of a coordinator, or show one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon jobs                                   one line per job
  antiphon jobs digits-1                          one job, with the full reason
  antiphon jobs digits-1 --specification > digits.yaml
  antiphon jobs --format json --coordinator http://10.0.0.5:7070")]
pub struct JobsArgs {
    /// Id of one job: show its state, the full reason why it waits or how it ended, and its newest checkpoint
    #[arg(value_name = "JOB")]
    pub job: Option<String>,

    /// Print the specification of JOB with every default, as a YAML job file that `antiphon submit` accepts; JSON
    /// with --format json
    #[arg(long, requires = "job")]
    pub specification: bool,

    /// The coordinator
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Runs the command.
///
/// # Errors
/// There is no such job, or no coordinator answers.
pub async fn run(args: JobsArgs, format: Format) -> anyhow::Result<Exit> {
    let client = Client::new(&args.connect.coordinator)?;
    match args.job {
        Some(job) => {
            let (status, specification) = client.job(&job).await.map_err(ClientError::advised)?;
            match (args.specification, format) {
                (true, _) => print_specification(&specification, format)?,
                (false, Format::Json) => output::json(&Listed::from(&status))?,
                (false, Format::Text) => output::line(Listed::from(&status).details().trim_end())?,
            }
        }
        None => {
            let jobs = client.jobs().await.map_err(ClientError::advised)?;
            match format {
                Format::Json => jobs.iter().try_for_each(|status| output::json(&Listed::from(status)))?,
                Format::Text if jobs.is_empty() => output::line("no jobs")?,
                Format::Text => output::line(table(&jobs, output::width()).trim_end())?,
            }
        }
    }
    Ok(Exit::Success)
}

fn print_specification(json: &str, format: Format) -> anyhow::Result<()> {
    let other_version = "the coordinator sent a specification that is not JSON; check that client and coordinator have \
                         the same version";
    match format {
        Format::Json => output::json(&serde_json::from_str::<Value>(json).context(other_version)?)?,
        Format::Text => output::line(yaml::from_json(json).context(other_version)?.trim_end())?,
    }
    Ok(())
}

/// The status of a job as `--format json` prints it.
#[derive(Debug, Serialize)]
pub(super) struct Listed<'a> {
    event: &'static str,
    job: &'a str,
    name: &'a str,
    state: &'static str,
    reason: &'a str,
    term: u64,
    turn: u64,
    /// None until every worker has opened its data.
    turns: Option<u64>,
    /// RFC 3339 time, from the coordinator's clock.
    submitted: Option<String>,
    checkpoint: Option<&'a str>,
}

impl<'a> From<&'a JobStatus> for Listed<'a> {
    fn from(status: &'a JobStatus) -> Self {
        let submitted = i64::try_from(status.submitted).ok().filter(|seconds| *seconds > 0);
        let submitted = submitted.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        Self {
            event: "job",
            job: &status.job,
            name: &status.name,
            state: match status.state() {
                JobState::Unspecified => "unknown",
                JobState::Waiting => "waiting",
                JobState::Running => "running",
                JobState::Succeeded => "succeeded",
                JobState::Failed => "failed",
                JobState::Stopped => "stopped",
            },
            reason: &status.reason,
            term: status.term,
            turn: status.turn,
            turns: Some(status.turns).filter(|turns| *turns > 0),
            submitted: submitted.map(|at| at.with_timezone(&Local).to_rfc3339()),
            checkpoint: Some(status.checkpoint.as_str()).filter(|url| !url.is_empty()),
        }
    }
}

impl Listed<'_> {
    fn turns(&self) -> String {
        match self.turns {
            Some(turns) => format!("{} of {turns}", self.turn),
            None => self.turn.to_string(),
        }
    }

    /// Whether the job has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, "succeeded" | "failed" | "stopped")
    }

    /// The checkpoint to resume the job from, if it has ended before its last turn.
    pub(super) fn resumable(&self) -> Option<&str> {
        self.checkpoint.filter(|_| matches!(self.state, "failed" | "stopped"))
    }

    /// How the job ended, as text.
    pub(super) fn outcome(&self) -> String {
        match self.state {
            "failed" => format!("failed after {} turns: {}", self.turn, self.reason),
            state => format!("{state} after {} turns", self.turn),
        }
    }

    /// One line for each field that has a value.
    fn details(&self) -> String {
        let rows = [
            ("job", Some(self.job.to_owned())),
            ("name", Some(self.name.to_owned())),
            ("state", Some(self.state.to_owned())),
            ("reason", Some(self.reason.to_owned()).filter(|reason| !reason.is_empty())),
            ("turn", Some(self.turns())),
            ("term", Some(self.term.to_string())),
            ("submitted", self.submitted.clone()),
            ("checkpoint", self.checkpoint.map(str::to_owned)),
        ];
        rows.into_iter().filter_map(|(name, value)| Some(format!("{name:<12}{}\n", value?))).collect()
    }
}

/// The smallest width of the column of reasons, even on a narrower terminal.
const LEAST_REASON: usize = 20;

/// One line per job: its id, state and turn, when it was submitted, and why it waits or how it ended. On a terminal of
/// `width` columns, a reason that does not fit is shortened.
fn table(jobs: &[JobStatus], width: Option<usize>) -> String {
    let head = ["JOB", "STATE", "TURN", "SUBMITTED", "REASON"].map(str::to_owned);
    let rows = jobs.iter().map(Listed::from).map(|job| {
        let submitted = job.submitted.as_deref().and_then(|at| at.get(..16)).unwrap_or_default().replace('T', " ");
        // A reason stays on one line, even if it holds a store's message of several lines.
        let reason = job.reason.split_whitespace().collect::<Vec<_>>().join(" ");
        [job.job.to_owned(), job.state.to_owned(), job.turns(), submitted, reason]
    });
    let mut rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let before: usize = widths[..4].iter().map(|width| width + 2).sum();
    let space = width.map_or(usize::MAX, |width| width.saturating_sub(before).max(LEAST_REASON));
    let mut is_shortened = false;
    for [.., reason] in &mut rows {
        if reason.chars().count() > space {
            *reason = reason.chars().take(space - 1).collect::<String>() + "…";
            is_shortened = true;
        }
    }
    let line = |row: &[String; 5]| {
        let cells: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("{}\n", cells.trim_end())
    };
    let note =
        if is_shortened { "\n`antiphon jobs JOB` shows the whole reason, and so does --format json\n" } else { "" };
    rows.iter().map(line).collect::<String>() + note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(job: &str, state: JobState, reason: &str) -> JobStatus {
        JobStatus { job: job.to_owned(), state: state.into(), reason: reason.to_owned(), ..JobStatus::default() }
    }

    #[test]
    fn a_table_has_a_line_per_job_and_columns_of_fitting_width() {
        let running = JobStatus { turn: 12, turns: 522, ..job("digits-1", JobState::Running, "") };
        let waiting = job("d", JobState::Waiting, "waiting for 1 `audio` worker: 0 registered");
        assert_eq!(
            table(&[running, waiting], None),
            "JOB       STATE    TURN       SUBMITTED  REASON\n\
             digits-1  running  12 of 522\n\
             d         waiting  0                     waiting for 1 `audio` worker: 0 registered\n"
        );
    }

    #[test]
    fn a_reason_is_shortened_to_the_width_of_the_terminal() {
        let waiting = job("d", JobState::Waiting, "waiting for 1 `audio` worker: 0 registered");
        let jobs = [waiting, job("e", JobState::Running, "")];
        let note = "\n`antiphon jobs JOB` shows the whole reason, and so does --format json\n";
        let head = "JOB  STATE    TURN  SUBMITTED  REASON\n";
        let last = "e    running  0\n";
        assert_eq!(
            table(&jobs, Some(60)),
            format!("{head}d    waiting  0                waiting for 1 `audio` worker…\n{last}{note}")
        );
        assert!(table(&jobs, Some(60)).lines().all(|line| line.chars().count() <= 60 || note.contains(line)));
        assert_eq!(
            table(&jobs, Some(20)),
            format!("{head}d    waiting  0                waiting for 1 `audi…\n{last}{note}")
        );
        assert_eq!(table(&jobs, Some(100)), table(&jobs, None));
    }

    #[test]
    fn details_leave_out_fields_without_a_value() {
        let failed = JobStatus { turn: 7, term: 2, name: "n".to_owned(), ..job("j", JobState::Failed, "no luck") };
        let listed = Listed::from(&failed);
        assert_eq!(listed.outcome(), "failed after 7 turns: no luck");
        let wanted =
            "job         j\nname        n\nstate       failed\nreason      no luck\nturn        7\nterm        2\n";
        assert_eq!(listed.details(), wanted);
    }
}
