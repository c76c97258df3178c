//! The last step of every encoder: a linear map where its own width is not s.

use candle_core::{Result, Tensor};

use crate::nn::layer::{Linear, Pass};
use crate::nn::linear::Activation;
use crate::nn::parameters::Parameters;

/// From the encoder's own width to s.
#[derive(Debug, Clone)]
pub(super) struct Adapter {
    linear: Option<Linear>,
}

impl Adapter {
    /// No parameters when the widths are the same.
    pub(super) fn new(made: &mut Parameters<'_>, from: usize, to: usize) -> Result<Self> {
        let linear = if from == to { None } else { Some(Linear::new(made, "adapter", from, to, 1.0)?) };
        Ok(Self { linear })
    }

    /// A linear map whatever the widths.
    pub(super) fn always(made: &mut Parameters<'_>, from: usize, to: usize) -> Result<Self> {
        Ok(Self { linear: Some(Linear::new(made, "adapter", from, to, 1.0)?) })
    }

    pub(super) fn forward(&self, pass: &Pass<'_>, natural: &Tensor) -> Result<Tensor> {
        match &self.linear {
            Some(linear) => linear.forward(pass, natural, Activation::Identity),
            None => Ok(natural.clone()),
        }
    }
}
