//! `antiphon eval CHECKPOINT`.

use crate::exit::Exit;
use crate::output::Format;

/// Eval with a checkpoint
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// The checkpoint: its folder or URL, or the folder of a run
    pub checkpoint: String,
}

/// Eval.
///
/// # Errors
/// A bad checkpoint.
pub async fn run(_args: EvalArgs, _format: Format) -> anyhow::Result<Exit> {
    anyhow::bail!("not there yet")
}
