//! The last step of every encoder: a linear map where its own width is not s.

use candle_core::Result;

use crate::nn::activation::Activation;
use crate::nn::layer::{Linear, Pass};
use crate::nn::parameters::Parameters;
use crate::nn::value::Value;

/// Wider features are made smaller, so that |h|², with which the head's steps grow, does not grow with s, and a learning
/// rate that serves one width serves all.
const WIDTH_OF_FULL_GAIN: f64 = 64.0;

/// What weights of an adapter to features of this width are multiplied by.
pub(crate) fn adapter_gain(to: usize) -> f64 {
    (WIDTH_OF_FULL_GAIN / to as f64).sqrt().min(1.0)
}

/// From the encoder's own width to s.
#[derive(Debug, Clone)]
pub(super) struct Adapter {
    linear: Option<Linear>,
}

impl Adapter {
    /// No parameters when the widths are the same.
    pub(super) fn new(made: &mut Parameters<'_>, from: usize, to: usize) -> Result<Self> {
        if from == to { Ok(Self { linear: None }) } else { Self::always(made, from, to) }
    }

    /// A linear map whatever the widths.
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
