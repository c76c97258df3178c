//! `antiphon predict CHECKPOINT`.

use crate::exit::Exit;
use crate::output::Format;

/// Predict with a checkpoint
#[derive(Debug, clap::Args)]
pub struct PredictArgs {
    /// The checkpoint: its folder or URL, or the folder of a run
    pub checkpoint: String,
}

/// Predict.
///
/// # Errors
/// A bad checkpoint.
pub async fn run(_args: PredictArgs, _format: Format) -> anyhow::Result<Exit> {
    anyhow::bail!("not there yet")
}
