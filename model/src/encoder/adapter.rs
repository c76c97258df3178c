//! The last layer of an encoder: a linear map if its own width is not s.

use candle_core::Result;

use crate::nn::activation::Activation;
use crate::nn::layer::{Linear, Pass};
use crate::nn::parameters::Parameters;
use crate::nn::value::Value;

/// Wider features are scaled down. The head's steps grow with |h|², so this keeps |h|² independent of s, and one
/// learning rate suits all widths.
const WIDTH_OF_FULL_GAIN: f64 = 64.0;

/// The factor of the weights of an adapter to features of this width.
pub(crate) fn adapter_gain(to: usize) -> f64 {
    (WIDTH_OF_FULL_GAIN / to as f64).sqrt().min(1.0)
}

/// A linear map from the encoder's own width to s.
#[derive(Debug, Clone)]
pub(super) struct Adapter {
    linear: Option<Linear>,
}

impl Adapter {
    /// An adapter without parameters if the widths are equal.
    pub(super) fn new(made: &mut Parameters<'_>, from: usize, to: usize) -> Result<Self> {
        if from == to { Ok(Self { linear: None }) } else { Self::always(made, from, to) }
    }

    /// An adapter with a linear map, even if the widths are equal.
    pub(super) fn always(made: &mut Parameters<'_>, from: usize, to: usize) -> Result<Self> {
        Ok(Self { linear: Some(Linear::new(made, "adapter", from, to, adapter_gain(to))?) })
    }

    pub(super) fn forward(&self, pass: &mut Pass<'_>, natural: &Value) -> Result<Value> {
        match &self.linear {
            Some(linear) => linear.forward(pass, natural, Activation::Identity),
            None => Ok(natural.clone()),
        }
    }
}
