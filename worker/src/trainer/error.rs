//! The errors of training one modality.

use antiphon_core::ids::{EvaluationId, ModalityName};
use antiphon_data::DataError;
use antiphon_model::encoder::EncoderError;
use antiphon_model::head::HeadStepError;
use antiphon_model::weights::{NoSuchParameter, WeightsError};
use antiphon_store::tensors::TensorsError;

/// Why a modality cannot be trained, evaluated or restored.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The job does not name the worker's modality.
    #[error("the job has no modality `{0}`; start the worker with `--modality` set to one of the job's modalities")]
    NoModality(ModalityName),
    /// The training split is empty.
    #[error("the training split of `{0}` has no samples; give files with rows of this modality")]
    NoSamples(ModalityName),
    /// The batches ended before the samples did.
    #[error("the split ended before its last sample")]
    SplitEnded,
    /// Steps were called out of order.
    #[error("the step has no {0}")]
    OutOfOrder(&'static str),
    /// Logits were requested without an evaluation.
    #[error("logits of evaluation {0} were requested, but the evaluation was not started")]
    NoEvaluation(EvaluationId),
    /// Training has diverged.
    #[error("the logits of sample `{id}` are not finite; training has diverged: lower the learning rates")]
    Diverged {
        /// The first such sample.
        id: String,
    },
    /// A file of a checkpoint belongs to another modality.
    #[error("`{file}` belongs to modality `{modality}`; use another checkpoint")]
    OtherModality {
        /// The file.
        file: String,
        /// The modality in its note.
        modality: ModalityName,
    },
    /// A tokenizer cannot be stored in a checkpoint.
    #[error("the tokenizer file is not UTF-8: {0}; save it as UTF-8")]
    Tokenizer(#[from] std::string::FromUtf8Error),
    /// The data are invalid or cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The encoder or its optimizer failed.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// Pretrained weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// `freeze` names no parameter.
    #[error(transparent)]
    Freeze(#[from] NoSuchParameter),
    /// The head cannot use the features.
    #[error(transparent)]
    Head(#[from] HeadStepError),
    /// A file of a checkpoint is broken.
    #[error(transparent)]
    File(#[from] TensorsError),
    /// candle failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Another error, with its context.
    #[error("{context}")]
    Within {
        /// What the error is about, such as the encoder of a modality or a step.
        context: String,
        /// The error.
        source: Box<TrainError>,
    },
}

impl TrainError {
    /// Whether a retry by this worker or another one may succeed: a store did not answer, or a device or disk failed.
    /// Errors in data, specifications or numbers are permanent.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Data(error) => error.is_transient(),
            Self::Encoder(error) => error.is_transient(),
            Self::Weights(error) => error.is_transient(),
            Self::Head(error) => error.is_transient(),
            // Another worker has another device and other memory.
            Self::Tensor(_) => true,
            Self::Within { source, .. } => source.is_transient(),
            Self::NoModality(_)
            | Self::NoSamples(_)
            | Self::SplitEnded
            | Self::OutOfOrder(_)
            | Self::NoEvaluation(_)
            | Self::Diverged { .. }
            | Self::OtherModality { .. }
            | Self::Tokenizer(_)
            | Self::Freeze(_)
            | Self::File(_) => false,
        }
    }
}

/// Adds context to an error.
pub(super) trait Within<T> {
    fn within(self, context: impl FnOnce() -> String) -> Result<T, TrainError>;
}

impl<T, E: Into<TrainError>> Within<T> for Result<T, E> {
    fn within(self, context: impl FnOnce() -> String) -> Result<T, TrainError> {
        self.map_err(|error| TrainError::Within { context: context(), source: Box::new(error.into()) })
    }
}
