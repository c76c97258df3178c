//! `antiphon data`: generates data sets and inspects data files.

mod inspect;
mod picture;
mod synth;
mod units;

use clap::Subcommand;

use crate::exit::Exit;
use crate::output::Format;

pub use inspect::InspectArgs;
pub use synth::SynthArgs;

/// Generate data sets and inspect data files
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// The command
    #[command(subcommand)]
    pub command: DataCommand,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Generate a data set as Parquet files
    ///
    /// Writes the train, validation and test splits, and prints a job that trains on them, or writes it to the file
    /// of --job.
    Synth(SynthArgs),
    /// Show the schema, classes, missing values, ids and samples of Parquet files
    Inspect(InspectArgs),
}

/// Runs the command.
///
/// # Errors
/// Invalid options, or files that cannot be read or written.
pub async fn run(args: DataArgs, format: Format) -> anyhow::Result<Exit> {
    match args.command {
        DataCommand::Synth(args) => synth::run(args, format).await,
        DataCommand::Inspect(args) => inspect::run(args, format).await,
    }
}
