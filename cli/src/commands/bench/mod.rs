//! `antiphon bench`: measurements that a job is decided by.

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

use crate::exit::Exit;
use crate::output::Format;

pub use encoder::EncoderArgs;
pub use joint::JointArgs;
pub use pipeline::PipelineArgs;
pub use recovery::RecoveryArgs;
pub use scale::ScaleArgs;
pub use turn::TurnArgs;

/// Measure what a job is decided by
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// What is measured
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Would joint training starve a modality? Train jointly, in turns and alone, and compare
    Joint(JointArgs),
    /// What does a training step of an encoder cost, in time and in memory?
    Encoder(EncoderArgs),
    /// What does a turn cost, beside the maths of the head?
    Turn(TurnArgs),
    /// What does it bring that all encoders compute at once?
    Pipeline(PipelineArgs),
    /// How many jobs does one coordinator carry?
    Scale(ScaleArgs),
    /// What does the death of a worker cost, and that of the coordinator?
    Recovery(RecoveryArgs),
}

/// Measures.
///
/// # Errors
/// A bad job file, data that cannot be read, a training that fails.
pub async fn run(args: BenchArgs, format: Format) -> anyhow::Result<Exit> {
    match args.command {
        BenchCommand::Joint(args) => joint::run(args, format).await,
        BenchCommand::Encoder(args) => encoder::run(args, format).await,
        BenchCommand::Turn(args) => turn::run(args, format).await,
        BenchCommand::Pipeline(args) => pipeline::run(args, format).await,
        BenchCommand::Scale(args) => scale::run(args, format).await,
        BenchCommand::Recovery(args) => recovery::run(args, format).await,
    }
}
