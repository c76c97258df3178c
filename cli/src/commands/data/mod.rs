//! `antiphon data`: data sets made and looked into.

mod inspect;
mod picture;
mod synth;
mod units;

use clap::Subcommand;

use crate::exit::Exit;
use crate::output::Format;

pub use inspect::InspectArgs;
pub use synth::SynthArgs;

/// Generate data sets, and look into data files
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// What is done
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Generate a data set: train, validation and test as Parquet files
    Synth(SynthArgs),
    /// Look into Parquet files: schema, classes, missing values, ids, a few samples
    Inspect(InspectArgs),
}

/// Makes data, or looks into them.
///
/// # Errors
/// Options that are not possible, files that cannot be read or written.
pub async fn run(args: DataArgs, format: Format) -> anyhow::Result<Exit> {
    match args.command {
        DataCommand::Synth(args) => synth::run(args, format).await,
        DataCommand::Inspect(args) => inspect::run(args, format).await,
    }
}
