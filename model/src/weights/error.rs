//! What can go wrong with pretrained weights.

use antiphon_data::DataError;

use super::report::Report;
use crate::encoder::EncoderError;

/// Weights that cannot be fetched, read or taken over.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The place cannot be read.
    #[error("weights cannot be fetched: {0}")]
    Unreachable(#[from] DataError),
    /// Fetched files cannot be kept.
    #[error(
        "fetched weights cannot be kept in `{folder}`: {reason}; make it writable, or set ANTIPHON_CACHE to a folder that is"
    )]
    Cache {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another file than the job means.
    #[error("weights `{file}` have SHA-256 {found}, but `weights.sha256` is {expected}; correct one of the two")]
    Digest {
        /// The file.
        file: String,
        /// As the job gives it.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// Not a file of weights, or a broken one.
    #[error("weights `{file}` cannot be read: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Names or shapes do not match the encoder.
    #[error(
        "weights `{file}` do not fit encoder `{kind}`: {report}\n\
         take weights of this encoder, trained on such input, or set `strict: false` to load the {} that fit and draw the others", .report.loaded
    )]
    Misfit {
        /// The file.
        file: String,
        /// The encoder's kind.
        kind: String,
        /// Every name that differs.
        report: Box<Report>,
    },
    /// Not one tensor fits.
    #[error("no tensor of weights `{file}` fits encoder `{kind}`: {report}\ntake weights of this encoder")]
    NothingFits {
        /// The file.
        file: String,
        /// The encoder's kind.
        kind: String,
        /// Every name that differs.
        report: Box<Report>,
    },
    /// A value with which nothing can be computed.
    #[error("tensor `{name}` has {value} in it; weights are finite numbers")]
    NotFinite {
        /// Of the encoder.
        name: String,
        /// The first such value.
        value: f32,
    },
    /// A tensor of another shape, or that the encoder does not have.
    #[error("tensor `{name}` {problem}")]
    WrongTensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The encoder failed.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// candle failed.
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl WeightsError {
    /// Whether another try may succeed: of a store that did not answer, or a device that failed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(error) => error.is_transient(),
            Self::Encoder(error) => error.is_transient(),
            Self::Tensor(_) => true,
            _ => false,
        }
    }
}
