//! `cnn`: a small convolutional network, for images and spectrograms.

use std::collections::BTreeMap;

use antiphon_data::{BatchInput, Images, InputShape};
use candle_core::{DType, Tensor, Var};

use super::adapter::Adapter;
use super::contract::{Encoder, Forward, Pending};
use super::error::EncoderError;
use super::input::{frame_mean, grid};
use crate::nn::activation::Activation;
use crate::nn::convolution::convolution;
use crate::nn::layer::Mode;
use crate::nn::layer::{BatchNorm, Pass};
use crate::nn::parameters::Parameters;
use crate::nn::pooling::{Window, grid_mean, max_pool};

/// 3×3 convolution without bias (the normalisation has one), batch norm, ReLU, 2×2 pooling.
struct Stage {
    kernel: Var,
    norm: BatchNorm,
}

/// Cells per side of the grid of means after the last stage.
const CELLS: usize = 3;

/// The norm of the adapter's input, for every width. The adapter's steps grow with its square. A larger norm learns
/// faster, until plain gradient descent with the usual learning rates of 0.01 to 0.1 no longer converges.
const NORM: f64 = 16.0;

/// Stages, means over the cells of a grid, batch norm, dropout, adapter. Without this batch norm, the mean of the ReLU
/// outputs would dominate the gradient.
pub(super) struct Cnn {
    shape: InputShape,
    stages: Vec<Stage>,
    cells: (usize, usize),
    /// The width of the adapter's input.
    natural: usize,
    norm: BatchNorm,
    dropout: f64,
    adapter: Adapter,
    width: usize,
    activations: DType,
    parameters: Vec<(String, Var)>,
}

impl Cnn {
    pub(super) fn new(
        mut made: Parameters<'_>,
        channels: &[u32],
        dropout: f64,
        shape: &InputShape,
        width: usize,
    ) -> Result<Self, EncoderError> {
        let Some(Images { channels: mut last, mut height, width: mut wide, .. }) = shape.images() else {
            let instead = if matches!(shape, InputShape::Tokens { .. }) { "`text`" } else { "`mlp`" };
            return Err(EncoderError::WrongInput { kind: "cnn", input: shape.clone(), instead });
        };
        let most = height.min(wide).checked_ilog2().unwrap_or(0) as usize;
        if channels.len() > most {
            return Err(EncoderError::TooManyStages { stages: channels.len(), height, width: wide, most });
        }
        let mut stages = Vec::new();
        for (i, channels) in channels.iter().map(|c| *c as usize).enumerate() {
            // He et al. 2015: deviation √(2 / inputs) before ReLU.
            let deviation = (2.0 / (9 * last) as f64).sqrt();
            let kernel = made.normal(format!("stages.{i}.conv.weight"), (channels, last, 3, 3), deviation)?;
            let norm = BatchNorm::new(&mut made, &format!("stages.{i}.norm"), channels, 1.0)?;
            stages.push(Stage { kernel, norm });
            (last, height, wide) = (channels, height / 2, wide / 2);
        }
        let cells = (height.min(CELLS), wide.min(CELLS));
        let natural = last * cells.0 * cells.1;
        let norm = BatchNorm::new(&mut made, "norm", natural, NORM / (natural as f64).sqrt())?;
        let adapter = Adapter::always(&mut made, natural, width)?;
        let (activations, parameters) = (made.activations(), made.into_made());
        Ok(Self {
            shape: shape.clone(),
            stages,
            cells,
            natural,
            norm,
            dropout,
            adapter,
            width,
            activations,
            parameters,
        })
    }

    /// The batch norms in the order of a pass.
    fn norms(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        self.stages.iter_mut().map(|stage| &mut stage.norm).chain([&mut self.norm])
    }
}

impl Encoder for Cnn {
    fn width(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn buffers(&self) -> Result<Vec<(String, Tensor)>, EncoderError> {
        let mut buffers = Vec::new();
        for norm in self.stages.iter().map(|stage| &stage.norm).chain([&self.norm]) {
            buffers.extend(norm.buffers()?);
        }
        Ok(buffers)
    }

    fn load_buffers(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), EncoderError> {
        for norm in self.norms() {
            norm.load_buffers(tensors)?;
        }
        Ok(())
    }

    fn forward(&self, input: &BatchInput, mode: &Mode) -> Result<Forward, EncoderError> {
        let mut pass = Pass::new(mode, self.activations);
        let mut x = grid(input, &self.shape, &pass, &self.parameters)?;
        for stage in &self.stages {
            x = convolution(&x, &pass.parameter(&stage.kernel), 1, 1)?;
            x = stage.norm.forward(&mut pass, &x, None, Activation::Relu)?;
            x = max_pool(&x, Window::tiles(2))?;
        }
        x = grid_mean(&x, self.cells)?.reshape(((), self.natural))?;
        x = frame_mean(self.norm.forward(&mut pass, &x, None, Activation::Identity)?, &self.shape)?;
        x = pass.dropout(&x, self.dropout)?;
        let features = self.adapter.forward(&mut pass, &x)?;
        Forward::new(&features, pass)
    }

    fn commit(&mut self, pending: Pending) {
        self.norms().zip(&pending.0).for_each(|(norm, batch)| norm.absorb(batch));
    }
}
