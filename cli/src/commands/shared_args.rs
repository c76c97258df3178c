//! Arguments that several commands share.

use std::path::{Path, PathBuf};

use antiphon_core::spec::{FieldReport, JobSpec, Override, ScheduleMode, parse};
use antiphon_model::custom::Encoders;
use antiphon_transport::ConnectArgs;

use crate::exit::{Exit, OrExit as _};
use crate::job_file::{self, JobFileError};
use crate::output::{program, quoted};

/// A job file, with changes to it
#[derive(Debug, Clone, clap::Args)]
pub struct JobArgs {
    /// Job file in YAML or JSON; `-` reads standard input
    #[arg(value_name = "JOB.yaml")]
    pub job: PathBuf,

    /// Set one field of the job, for example `--set schedule.epochs=3`; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
}

impl JobArgs {
    /// The job, and the fields as `check --explain` prints them.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid job.
    pub(crate) fn explain(&self, encoders: &Encoders) -> Result<(JobSpec, Vec<FieldReport>), JobFileError> {
        job_file::load(&self.job, &self.set, encoders)
    }

    /// The job.
    ///
    /// # Errors
    /// As [`Self::explain`], with the exit code for a usage error.
    pub(crate) fn load(&self, encoders: &Encoders) -> anyhow::Result<JobSpec> {
        Ok(self.explain(encoders).or_exit(Exit::Usage)?.0)
    }

    /// The arguments as they are typed.
    pub(crate) fn typed(&self) -> String {
        let set: String = self.set.iter().map(|change| format!(" --set {}", quoted(&change.to_string()))).collect();
        format!("{}{set}", quoted(&self.job.display().to_string()))
    }

    /// Whether the job is read from standard input, so that it cannot be read again.
    pub(crate) fn is_standard_input(&self) -> bool {
        self.job == Path::new("-")
    }
}

/// The default of --coordinator.
const COORDINATOR: &str = "http://127.0.0.1:7070";

/// ` --coordinator URL` as it is typed; empty for the default.
pub(super) fn typed_coordinator(connect: &ConnectArgs) -> String {
    match connect.coordinator.as_str() {
        COORDINATOR => String::new(),
        url => format!(" --coordinator {}", quoted(url)),
    }
}

/// The command that resubmits a job of a coordinator, without the URL of the checkpoint that must follow. It needs no
/// job file.
pub(super) fn resume_command(job: &str, connect: &ConnectArgs) -> String {
    let (program, coordinator) = (program(), typed_coordinator(connect));
    format!("{program} jobs {job} --specification{coordinator} | {program} submit -{coordinator} --resume")
}

/// A job file, or the built-in job of a bench, with changes to it
#[derive(Debug, Clone, clap::Args)]
pub struct BenchJobArgs {
    /// Job file in YAML or JSON [default: a built-in job on generated data]
    #[arg(value_name = "JOB.yaml")]
    pub job: Option<PathBuf>,

    /// Set one field of the job, for example `--set schedule.batch=16`; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
}

impl BenchJobArgs {
    /// Reads the named job file, or else the job in `built_in`.
    ///
    /// # Errors
    /// The file cannot be read, or is not a valid job.
    pub(crate) fn load(&self, built_in: &str, encoders: &Encoders) -> anyhow::Result<JobSpec> {
        let loaded = match &self.job {
            Some(job) => job_file::load(job, &self.set, encoders).map(|(spec, _)| spec),
            None => parse(built_in, "the built-in job", &self.set, &|_| None).map_err(Into::into),
        };
        loaded.or_exit(Exit::Usage)
    }
}

/// Which encoders compute at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Schedule {
    /// All encoders compute at the same time
    Pipelined,
    /// One encoder computes after the other
    Sequential,
}

impl From<Schedule> for ScheduleMode {
    fn from(schedule: Schedule) -> Self {
        match schedule {
            Schedule::Pipelined => Self::Pipelined,
            Schedule::Sequential => Self::Sequential,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_names_another_coordinator() {
        let command = crate::command();
        let jobs = command.find_subcommand("jobs").expect("a command");
        let option = jobs.get_arguments().find(|option| option.get_id() == "coordinator").expect("an option");
        assert_eq!(option.get_default_values(), [COORDINATOR]);
        let at = |url: &str| typed_coordinator(&ConnectArgs { coordinator: url.to_owned() });
        assert_eq!((at(COORDINATOR), at("http://h:1")), (String::new(), " --coordinator http://h:1".to_owned()));
    }
}
