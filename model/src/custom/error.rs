//! Why a network cannot be built.

use super::options::OptionError;

/// What a registered function answers when it cannot build its network.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An option of the job is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// candle refuses: usually shapes that do not fit.
    #[error("{0}")]
    Tensor(#[from] candle_core::Error),
    /// The network is not made for such a modality, in its own words.
    #[error("{0}")]
    Refused(String),
}

impl BuildError {
    /// The network is not made for such a modality. Say what it needs.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}
