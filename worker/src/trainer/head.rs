//! The worker's half of the head's step, where the features are: in main memory, or on the card that they were computed on.

use antiphon_core::head::{BatchErrors, Contribution, Head};
use candle_core::{Device, Tensor};

use crate::encoder::Forward;
#[cfg(feature = "cuda")]
use crate::nn::cuda;

/// D of a batch, until dH is wanted of it.
#[derive(Debug)]
pub(crate) enum Errors {
    InMemory(BatchErrors<f32>),
    #[cfg(feature = "cuda")]
    OnCard(cuda::head::Errors),
}

/// See [`Head::contribution`], of the features of this pass.
pub(crate) fn contribution(
    head: &Head<f32>,
    forward: &Forward,
    labels: &[u32],
) -> anyhow::Result<(Contribution<f32>, Errors)> {
    #[cfg(feature = "cuda")]
    if forward.features.device().is_cuda() {
        let (contribution, errors) = cuda::head::contribution(head, &forward.features, labels)?;
        return Ok((contribution, Errors::OnCard(errors)));
    }
    let (contribution, errors) = head.contribution(forward.matrix()?, labels)?;
    Ok((contribution, Errors::InMemory(errors)))
}

impl Errors {
    /// dH = D W (B × s) where the features are. `head` is the one that [`contribution`] had.
    pub(crate) fn feature_gradient(&self, head: &Head<f32>) -> anyhow::Result<Tensor> {
        Ok(match self {
            Self::InMemory(errors) => {
                let gradient = head.feature_gradient(errors);
                let shape = (gradient.rows(), gradient.cols());
                Tensor::from_vec(gradient.into_vec(), shape, &Device::Cpu)?
            }
            #[cfg(feature = "cuda")]
            Self::OnCard(errors) => errors.feature_gradient()?,
        })
    }
}
