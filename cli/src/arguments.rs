//! The command line as clap parses it.

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands;
use crate::commands::serve;
use crate::output::Format;

/// Train multimodal models by alternating unimodal adaptation (MLA)
///
/// Each modality trains its own encoder. All modalities share one head, which the coordinator owns. Encoders take turns
/// at training the head.
#[derive(Debug, Parser)]
#[command(
    name = "antiphon",
    version,
    after_help = "\
Examples:
  antiphon run examples/spoken-digits.yaml       train on generated data
  antiphon run job.yaml --set schedule.epochs=3  train for three epochs
  antiphon check job.yaml --explain              list every field of a job
  antiphon eval antiphon-runs/JOB --drop audio   measure without one modality
  antiphon submit job.yaml --coordinator URL     send a job to a coordinator

`run` needs no other process. For a cluster, start a `coordinator` and one `worker` for each modality, then `submit` jobs; `jobs`, \
`follow` and `stop` deal with submitted jobs.

Exit codes: 0 success, 1 the job failed, 2 usage error or invalid job file, 3 cannot connect, 4 timed out, 130 interrupted"
)]
pub struct Cli {
    /// Format of the output: human-readable text, or one JSON object per line
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
    ///
    /// A coordinator and one worker per modality run in this process. Each run has a folder below --state, which holds
    /// its checkpoints.
    Run(commands::run::RunArgs),
    /// Validate a job file without running it
    Check(commands::check::CheckArgs),
    /// Measure the accuracy of a checkpoint
    ///
    /// Reports each modality alone, and all modalities fused by every rule.
    Eval(commands::eval::EvalArgs),
    /// Predict with a checkpoint
    ///
    /// Writes JSON lines to standard output, or JSON lines or Parquet to a file.
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
    ///
    /// It accepts jobs, owns their shared heads, assigns workers to jobs and writes checkpoints.
    #[command(mut_args(serve::explained), after_help = serve::COORDINATOR_EXAMPLES)]
    Coordinator(antiphon_coordinator::config::CoordinatorArgs),
    /// Run a worker for one modality
    ///
    /// It registers with a coordinator and trains the encoder of its modality, for one job after another.
    #[command(after_help = serve::WORKER_EXAMPLES)]
    Worker(antiphon_worker::WorkerArgs),
    /// Send a job to a coordinator
    ///
    /// Prints the id of the job once the coordinator has persisted it. If the connection breaks, the submission is sent
    /// again; it makes one job only.
    Submit(commands::submit::SubmitArgs),
    /// List the jobs of a coordinator, or show one
    ///
    /// Jobs are listed in the order of submission. The coordinator retains the latest jobs that have ended (`antiphon
    /// coordinator --keep-jobs`).
    Jobs(commands::jobs::JobsArgs),
    /// Show the events of a job until it ends
    ///
    /// Begins with the first event of the job, which may have ended already. The exit code is that of the job. Ctrl-C
    /// stops the output and leaves the job running.
    Follow(commands::follow::FollowArgs),
    /// Ask a job to stop at its next turn boundary
    ///
    /// The job writes a checkpoint. The command that resumes the job from it is printed once the job has stopped,
    /// with --follow or by a second `antiphon stop`. A checkpoint needs a worker of every modality. If one is missing,
    /// the job waits for another; --now does not wait. Asking twice, or asking a job that has ended, changes nothing.
    Stop(commands::stop::StopArgs),
}

/// The command line as clap knows it, with every subcommand, flag and help text.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}
