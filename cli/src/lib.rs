//! `antiphon`: the command line.
//!
//! [`commands`] has one module per command; [`follow`] shows a job's events to people and programs; [`cluster`] holds a
//! coordinator and its workers in one process; [`predictor`] answers out of a checkpoint; `joint` trains all modalities at
//! once, to compare with.

mod client;
pub mod cluster;
pub mod commands;
mod duration;
pub mod exit;
pub mod follow;
mod joint;
mod outage;
pub mod output;
pub mod predictor;
mod remarks;
mod submission;
mod watching;

use antiphon_store::storage::StoreOptions;
use clap::{Parser, Subcommand};

use exit::Exit;
use output::Format;

/// Train multimodal models by alternating unimodal adaptation (MLA)
///
/// Each modality trains its own encoder; all share one head, which a coordinator owns and hands round in turns.
#[derive(Debug, Parser)]
#[command(
    name = "antiphon",
    version,
    after_help = "\
Examples:
  antiphon run examples/spoken-digits.yaml            train on generated data, here and now
  antiphon run job.yaml --set schedule.epochs=3       the same job, shorter
  antiphon check job.yaml --explain                   every field of a job, with its default
  antiphon eval antiphon-runs/JOB --drop audio        how good it is without one modality
  antiphon submit job.yaml --coordinator URL          send it to a coordinator; jobs, follow and stop are for afterwards

Exit codes: 0 success, 1 the job failed, 2 usage or bad job file, 3 could not connect, 4 timed out, 130 interrupted"
)]
pub struct Cli {
    /// How results are printed: for people, or one JSON object per line
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,

    /// What is done.
    #[command(subcommand)]
    pub command: Command,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a job here: a coordinator and one worker per modality in this process
    Run(commands::run::RunArgs),
    /// Validate a job file without running it
    Check(commands::check::CheckArgs),
    /// Measure a checkpoint on a split
    Eval(commands::eval::EvalArgs),
    /// Predict with a checkpoint
    Predict(commands::predict::PredictArgs),
    /// Check a checkpoint's files, and train it again to compare
    Verify(commands::verify::VerifyArgs),
    /// Generate data sets, and look into data files
    Data(commands::data::DataArgs),
    /// Measure what a job is decided by
    Bench(commands::bench::BenchArgs),
    /// Kill the processes of a job at random, and see whether it comes to the same
    Chaos(commands::chaos::ChaosArgs),
    /// Serve as coordinator
    Coordinator(antiphon_coordinator::config::CoordinatorArgs),
    /// Serve as worker for one modality
    Worker(antiphon_worker::WorkerArgs),
    /// Send a job to a coordinator
    Submit(commands::submit::SubmitArgs),
    /// List the jobs of a coordinator, or tell of one
    Jobs(commands::jobs::JobsArgs),
    /// Show the events of a job that was submitted, until it ends
    Follow(commands::follow::FollowArgs),
    /// Ask a job to stop at its next turn boundary, with a checkpoint
    Stop(commands::stop::StopArgs),
}

/// Carries out a command. Stores that it writes to are opened as `stores` says.
///
/// # Errors
/// Whatever goes wrong; [`exit::of`] says which exit code it means.
pub async fn execute(cli: Cli, stores: StoreOptions) -> anyhow::Result<Exit> {
    let format = cli.format;
    match cli.command {
        Command::Run(args) => commands::run::run(args, format, &stores).await,
        Command::Check(args) => {
            Ok(commands::check::run(&args, format, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())?)
        }
        Command::Eval(args) => commands::eval::run(args, format).await,
        Command::Predict(args) => commands::predict::run(args, format).await,
        Command::Verify(args) => commands::verify::run(args, format, &stores).await,
        Command::Data(args) => commands::data::run(args, format).await,
        Command::Bench(args) => commands::bench::run(args, format).await,
        Command::Chaos(args) => commands::chaos::run(args, format).await,
        Command::Coordinator(args) => commands::serve::coordinator(&args, stores).await,
        Command::Worker(args) => commands::serve::worker(args, stores).await,
        Command::Submit(args) => commands::submit::run(args, format).await,
        Command::Jobs(args) => commands::jobs::run(args, format).await,
        Command::Follow(args) => commands::follow::run(args, format).await,
        Command::Stop(args) => commands::stop::run(args, format).await,
    }
}
