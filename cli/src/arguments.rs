//! The command line as clap parses it.

use antiphon_model::custom::Encoders;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands;
use crate::output::Format;

/// Train multimodal models by alternating unimodal adaptation (MLA)
///
/// Each modality trains its own encoder. All modalities share one head, which the coordinator owns. Encoders take turns at training the head.
#[derive(Debug, Parser)]
#[command(
    name = "antiphon",
    version,
    after_help = "\
Examples:
  antiphon run examples/spoken-digits.yaml            train on generated data, on this machine
  antiphon run job.yaml --set schedule.epochs=3       train for three epochs instead
  antiphon check job.yaml --explain                   list every field of a job with its value
  antiphon eval antiphon-runs/JOB --drop audio        measure a checkpoint without one modality
  antiphon submit job.yaml --coordinator URL          send a job to a coordinator; see also jobs, follow and stop

Exit codes: 0 success, 1 the job failed, 2 usage error or invalid job file, 3 cannot connect, 4 timed out, 130 interrupted"
)]
pub struct Cli {
    /// Format of the output: text for people, or one JSON object per line
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a job on this machine
    Run(commands::run::RunArgs),
    /// Validate a job file without running it
    Check(commands::check::CheckArgs),
    /// Measure the accuracy of a checkpoint
    Eval(commands::eval::EvalArgs),
    /// Predict with a checkpoint
    Predict(commands::predict::PredictArgs),
    /// Check the files of a checkpoint, or train it again to compare
    Verify(commands::verify::VerifyArgs),
    /// Generate data sets and inspect data files
    Data(commands::data::DataArgs),
    /// Measure training steps, turns, jobs and recovery on this machine
    Bench(commands::bench::BenchArgs),
    /// Kill the processes of a job at random and compare its result
    Chaos(commands::chaos::ChaosArgs),
    /// Run a coordinator
    Coordinator(antiphon_coordinator::config::CoordinatorArgs),
    /// Run a worker for one modality
    Worker(antiphon_worker::WorkerArgs),
    /// Send a job to a coordinator
    Submit(commands::submit::SubmitArgs),
    /// List the jobs of a coordinator, or show one
    Jobs(commands::jobs::JobsArgs),
    /// Show the events of a job until it ends
    Follow(commands::follow::FollowArgs),
    /// Ask a job to stop at its next turn boundary
    Stop(commands::stop::StopArgs),
}

/// The command line as clap knows it, with every subcommand, flag and help text.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}
