//! The errors of pretrained weights.

use antiphon_data::DataError;

use super::report::Report;
use crate::encoder::EncoderError;

/// Why weights cannot be fetched, read or loaded.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be reached.
    #[error("weights cannot be fetched: {0}")]
    Unreachable(#[from] DataError),
    /// The cache folder cannot store fetched files.
    #[error(
        "fetched weights cannot be stored in `{folder}`: {reason}; make the folder writable, or set ANTIPHON_CACHE to \
         a writable folder"
    )]
    Cache {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file does not have the expected SHA-256.
    #[error("weights `{file}` have SHA-256 {found}, but `weights.sha256` is {expected}; correct one of the two")]
    Digest {
        /// The file.
        file: String,
        /// The SHA-256 in the job.
        expected: String,
        /// The SHA-256 of the file.
        found: String,
    },
    /// The file holds no weights, or is damaged.
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
         use weights of this encoder that were trained on the same kind of input, or set `strict: false` to load the {} that fit and initialise the others randomly", .report.loaded
    )]
    Misfit {
        /// The file.
        file: String,
        /// The encoder's kind.
        kind: String,
        /// Every name that differs.
        report: Box<Report>,
    },
    /// No tensor fits.
    #[error("no tensor of weights `{file}` fits encoder `{kind}`: {report}\nuse weights of this encoder")]
    NothingFits {
        /// The file.
        file: String,
        /// The encoder's kind.
        kind: String,
        /// Every name that differs.
        report: Box<Report>,
    },
    /// A weight is infinite or NaN.
    #[error("tensor `{name}` contains {value}, but weights must be finite; use another file")]
    NotFinite {
        /// The name of the tensor in the encoder.
        name: String,
        /// The first such value.
        value: f32,
    },
    /// A tensor has another shape, or the encoder has no such tensor.
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
    /// Whether a retry may succeed: a store did not answer, or a device failed.
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
