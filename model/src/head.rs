//! The worker's half of the head's step. It runs where the features are: in main memory, or on the GPU that computed
//! them.

use antiphon_core::head::{BatchErrors, Contribution, Head, HeadError};
use candle_core::{Device, Tensor};

use crate::encoder::{EncoderError, Forward};
#[cfg(feature = "cuda")]
use crate::nn::cuda;

/// Why the worker's half of the head's step failed.
#[derive(Debug, thiserror::Error)]
pub enum HeadStepError {
    /// Features, logits or labels that the head cannot use.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The device failed.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
}

impl HeadStepError {
    /// Whether a retry may succeed. It may only if a device failed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Encoder(error) if error.is_transient())
    }
}

impl From<candle_core::Error> for HeadStepError {
    fn from(error: candle_core::Error) -> Self {
        Self::Encoder(error.into())
    }
}

#[cfg(feature = "cuda")]
impl From<cuda::head::Failure> for HeadStepError {
    fn from(failure: cuda::head::Failure) -> Self {
        match failure {
            cuda::head::Failure::Head(error) => error.into(),
            cuda::head::Failure::Card(error) => error.into(),
        }
    }
}

/// D of a batch, from which dH is computed.
#[derive(Debug)]
pub struct Errors(Where);

#[derive(Debug)]
enum Where {
    InMemory(BatchErrors<f32>),
    #[cfg(feature = "cuda")]
    OnCard(cuda::head::Errors),
}

/// As [`Head::contribution`], for the features of this pass.
///
/// # Errors
/// As there, and if the device fails.
pub fn contribution(
    head: &Head<f32>,
    forward: &Forward,
    labels: &[u32],
) -> Result<(Contribution<f32>, Errors), HeadStepError> {
    #[cfg(feature = "cuda")]
    if forward.features.device().is_cuda() {
        let (contribution, errors) = cuda::head::contribution(head, &forward.features, labels)?;
        return Ok((contribution, Errors(Where::OnCard(errors))));
    }
    let (contribution, errors) = head.contribution(forward.matrix()?, labels)?;
    Ok((contribution, Errors(Where::InMemory(errors))))
}

impl Errors {
    /// dH = D W (B × s) where the features are. `head` must be the one that [`contribution`] used.
    ///
    /// # Errors
    /// The device fails.
    pub fn feature_gradient(&self, head: &Head<f32>) -> Result<Tensor, EncoderError> {
        Ok(match &self.0 {
            Where::InMemory(errors) => {
                let gradient = head.feature_gradient(errors);
                let shape = (gradient.rows(), gradient.cols());
                Tensor::from_vec(gradient.into_vec(), shape, &Device::Cpu)?
            }
            #[cfg(feature = "cuda")]
            Where::OnCard(errors) => errors.feature_gradient()?,
        })
    }
}
