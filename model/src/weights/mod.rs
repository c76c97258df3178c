//! Pretrained weights: from the file that a job names to the parameters of an encoder.
//!
//! ```text
//! WeightsSpec ─ fetch ─▶ file on disk ─ file ─▶ tensors by foreign names ─ names ─▶ by the encoder's ─ apply ─▶ encoder
//!                                                                            └─▶ report: missing, unexpected, unlike
//! ```
//!
//! Invariants: nothing of a file is executed; an encoder is changed as a whole or not at all; tensors that were not
//! loaded are reported. [`Rates`] determines which parameters are trained, and how fast.
//!
//! It does not know jobs, checkpoints (which already hold an encoder's values) or optimizers.

mod apply;
mod error;
mod fetch;
pub mod file;
mod freeze;
pub mod names;
mod report;

use antiphon_core::spec::{EncoderSpec, WeightsSpec};
use tracing::{info, warn};

pub use apply::load;
pub use error::WeightsError;
pub use fetch::Cache;
pub use freeze::{NoSuchParameter, Rates};
pub use report::{Report, Unlike};

use crate::encoder::Encoder;
use names::{Family, Own};

/// Fetches the file that a job names and loads it into the encoder, which was built from `kind`.
///
/// # Errors
/// If the file cannot be fetched or read, does not fit (with `strict`, in any name or shape), or holds numbers that are
/// not finite. The encoder is then unchanged.
pub async fn begin(
    encoder: &mut dyn Encoder,
    kind: &EncoderSpec,
    weights: &WeightsSpec,
    cache: &Cache,
) -> Result<Report, WeightsError> {
    let path = cache.fetch(weights).await?;
    let tensors = file::read(&path, &weights.from)?;
    let translated = names::translate(Family::of(kind), &Own::of(encoder)?, tensors);
    let report = translated.report;
    let (file, kind) = (weights.from.clone(), kind.kind().to_owned());
    if report.loaded == 0 {
        return Err(WeightsError::NothingFits { file, kind, report: Box::new(report) });
    }
    if weights.strict && !report.is_complete() {
        return Err(WeightsError::Misfit { file, kind, report: Box::new(report) });
    }
    load(encoder, &translated.tensors)?;
    if report.is_complete() {
        info!(weights = file, tensors = report.loaded, "the encoder starts from pretrained weights");
    } else {
        warn!(weights = file, "the encoder starts from pretrained weights that fit only partly: {report}");
    }
    Ok(report)
}
