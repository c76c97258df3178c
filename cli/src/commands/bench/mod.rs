//! `antiphon bench`: measurements that a job is decided by.

mod encoder;
mod head_worker;
mod in_turns;
mod joint;
mod quantiles;
mod turn;

use clap::Subcommand;

use crate::exit::Exit;
use crate::output::Format;

pub use encoder::EncoderArgs;
pub use joint::JointArgs;
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
    }
}
