//! `antiphon data`: data sets made and looked into.

mod inspect;
mod picture;
mod synth;

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

/// `21.4 MB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1e3;
    let mut unit = 0;
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1e3;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// `1 row`, `2 rows`.
fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_unit_that_fits() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (5_250_000_000, "5.2 GB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
