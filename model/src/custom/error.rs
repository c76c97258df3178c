//! Why a network cannot be built.

use super::options::OptionError;

/// Why a registered function cannot build its network.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An option of the job is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// candle failed, usually because shapes do not fit.
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    /// The network does not support this modality, for this reason.
    #[error("{0}")]
    Refused(String),
}

impl BuildError {
    /// The error that the network does not support this modality. `reason` should say what the network needs.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}
