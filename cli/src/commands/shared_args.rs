//! Arguments that several commands share.

use std::path::PathBuf;

use antiphon_core::spec::{FieldReport, JobSpec, Override, ScheduleMode, parse};

use antiphon_model::custom::Encoders;

use crate::exit::{Exit, OrExit as _};
use crate::job_file::{self, JobFileError};

/// A job file, with changes to it
#[derive(Debug, Clone, clap::Args)]
pub struct JobArgs {
    /// Job file in YAML or JSON; `-` reads standard input
    pub job: PathBuf,

    /// Set one field of the job, for example `--set schedule.epochs=3`; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
}

impl JobArgs {
    /// The job, and what `check --explain` says of its fields.
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
}

/// A job file, or the built-in job of a bench, with changes to it
#[derive(Debug, Clone, clap::Args)]
pub struct BenchJobArgs {
    /// Job file in YAML or JSON [default: a built-in job on generated data]
    pub job: Option<PathBuf>,

    /// Set one field of the job, for example `--set schedule.batch=16`; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
}

impl BenchJobArgs {
    /// The job that is named, or the one in `built_in`.
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
