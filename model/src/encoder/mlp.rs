//! `mlp`: fully connected layers with ReLU, for features.

use antiphon_data::{BatchInput, InputShape};
use candle_core::{DType, Var};

use super::adapter::Adapter;
use super::contract::{Encoder, Forward};
use super::error::EncoderError;
use super::input::{dense, frame_mean};
use crate::nn::activation::Activation;
use crate::nn::layer::Mode;
use crate::nn::layer::{Linear, Pass};
use crate::nn::parameters::Parameters;
use crate::nn::value::Value;

/// `(linear, ReLU, dropout)` for each hidden width, then the adapter.
pub(super) struct Mlp {
    shape: InputShape,
    layers: Vec<Linear>,
    dropout: f64,
    adapter: Adapter,
    width: usize,
    activations: DType,
    parameters: Vec<(String, Var)>,
}

impl Mlp {
    /// Without hidden layers there is only the adapter. It exists even if the widths are equal, because an encoder must
    /// have parameters.
    pub(super) fn new(
        mut made: Parameters<'_>,
        hidden: &[u32],
        dropout: f64,
        shape: &InputShape,
        width: usize,
    ) -> Result<Self, EncoderError> {
        if matches!(shape, InputShape::Tokens { .. }) {
            return Err(EncoderError::WrongInput { kind: "mlp", input: shape.clone(), instead: "`text`" });
        }
        let mut layers = Vec::new();
        let mut last = shape.size() / shape.frames();
        for (i, hidden) in hidden.iter().map(|h| *h as usize).enumerate() {
            layers.push(Linear::new(&mut made, &format!("layers.{i}"), last, hidden, std::f64::consts::SQRT_2)?);
            last = hidden;
        }
        let adapter = if layers.is_empty() {
            Adapter::always(&mut made, last, width)?
        } else {
            Adapter::new(&mut made, last, width)?
        };
        let (activations, parameters) = (made.activations(), made.into_made());
        Ok(Self { shape: shape.clone(), layers, dropout, adapter, width, activations, parameters })
    }
}

impl Encoder for Mlp {
    fn width(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn forward(&self, input: &BatchInput, mode: &Mode) -> Result<Forward, EncoderError> {
        let mut pass = Pass::new(mode, self.activations);
        let mut x = Value::constant(dense(input, &self.shape, &pass, &self.parameters)?.flatten_from(1)?);
        for layer in &self.layers {
            x = layer.forward(&mut pass, &x, Activation::Relu)?;
            x = pass.dropout(&x, self.dropout)?;
        }
        let features = self.adapter.forward(&mut pass, &frame_mean(x, &self.shape)?)?;
        Forward::new(&features, pass)
    }
}
