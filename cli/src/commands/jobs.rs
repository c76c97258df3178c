//! `antiphon jobs`: the jobs of a coordinator, and the status of one.

use antiphon_proto::v1::{JobState, JobStatus};
use antiphon_transport::ConnectArgs;
use anyhow::Context as _;
use chrono::{DateTime, Local};
use serde::Serialize;
use serde_json::Value;

use crate::client::Client;
use crate::exit::Exit;
use crate::output::{self, Format};

/// List the jobs of a coordinator, or show one
#[derive(Debug, clap::Args)]
pub struct JobsArgs {
    /// Show only this job: its state, why it waits, and its newest checkpoint
    #[arg(value_name = "JOB")]
    pub job: Option<String>,

    /// Print the specification of JOB with every default, as a job file that `antiphon submit` accepts
    #[arg(long, requires = "job")]
    pub specification: bool,

    /// The coordinator
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Lists the jobs, or shows one.
///
/// # Errors
/// No such job, or no coordinator.
pub async fn run(args: JobsArgs, format: Format) -> anyhow::Result<Exit> {
    let client = Client::new(&args.connect.coordinator)?;
    match (args.job, format) {
        (Some(job), _) if args.specification => {
            let (_, specification) = client.job(&job).await?;
            let specification: Value = serde_json::from_str(&specification)
                .context("the coordinator sent a specification that is not JSON; is it of another version?")?;
            match format {
                Format::Json => output::json(&specification)?,
                Format::Text => output::line(&serde_json::to_string_pretty(&specification)?)?,
            }
        }
        (Some(job), Format::Json) => output::json(&Listed::from(&client.job(&job).await?.0))?,
        (Some(job), Format::Text) => output::line(Listed::from(&client.job(&job).await?.0).details().trim_end())?,
        (None, Format::Json) => {
            for status in client.jobs().await? {
                output::json(&Listed::from(&status))?;
            }
        }
        (None, Format::Text) => {
            let jobs = client.jobs().await?;
            match jobs.is_empty() {
                true => output::line("no jobs")?,
                false => output::line(table(&jobs).trim_end())?,
            }
        }
    }
    Ok(Exit::Success)
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
    /// By the coordinator's clock.
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

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, "succeeded" | "failed" | "stopped")
    }

    /// How it ended.
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

/// One line per job: its id, state and turn, when it was submitted, and why it waits or how it ended.
fn table(jobs: &[JobStatus]) -> String {
    let head = ["JOB", "STATE", "TURN", "SUBMITTED", "REASON"].map(str::to_owned);
    let rows = jobs.iter().map(Listed::from).map(|job| {
        let submitted = job.submitted.as_deref().and_then(|at| at.get(..16)).unwrap_or_default().replace('T', " ");
        // On one line, even if the message of a store has several.
        let reason = job.reason.split_whitespace().collect::<Vec<_>>().join(" ");
        [job.job.to_owned(), job.state.to_owned(), job.turns(), submitted, reason]
    });
    let rows: Vec<[String; 5]> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 5] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 5]| {
        let cells: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("{}\n", cells.trim_end())
    };
    rows.iter().map(line).collect()
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
            table(&[running, waiting]),
            "JOB       STATE    TURN       SUBMITTED  REASON\n\
             digits-1  running  12 of 522\n\
             d         waiting  0                     waiting for 1 `audio` worker: 0 registered\n"
        );
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
