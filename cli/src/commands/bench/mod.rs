//! `antiphon bench`: measurements of training and of the system on this machine.

mod children;
mod encoder;
mod head_worker;
mod in_turns;
mod joint;
mod pipeline;
mod recovery;
mod rows;
mod scale;
mod turn;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::Exit;

pub use encoder::EncoderArgs;
pub use joint::JointArgs;
pub use pipeline::PipelineArgs;
pub use recovery::RecoveryArgs;
pub use scale::ScaleArgs;
pub use turn::TurnArgs;

/// Measure training steps, turns, jobs and recovery on this machine
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// The bench
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// The benches.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Compare joint training, training in turns and training alone
    ///
    /// Shows whether joint training would starve a modality of a job.
    Joint(JointArgs),
    /// Measure the time and memory of a training step of an encoder
    Encoder(EncoderArgs),
    /// Measure the overhead of a turn beyond the computation of the head
    Turn(TurnArgs),
    /// Measure the speedup of encoders that compute at the same time
    Pipeline(PipelineArgs),
    /// Measure how many jobs one coordinator can run
    Scale(ScaleArgs),
    /// Measure recovery from the death of a worker and of the coordinator
    Recovery(RecoveryArgs),
}

/// Runs the command.
///
/// # Errors
/// An invalid job file, data that cannot be read, or a training that fails.
pub async fn run(args: BenchArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    match args.command {
        BenchCommand::Joint(args) => joint::run(args, context).await,
        BenchCommand::Encoder(args) => encoder::run(args, format).await,
        BenchCommand::Turn(args) => turn::run(args, format).await,
        BenchCommand::Pipeline(args) => pipeline::run(args, context).await,
        BenchCommand::Scale(args) => scale::run(args, format).await,
        BenchCommand::Recovery(args) => recovery::run(args, context).await,
    }
}
