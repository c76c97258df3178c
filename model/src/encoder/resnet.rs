//! `resnet18`, `resnet34`, `resnet50`: residual networks (He et al. 2016), with the shapes and names of torchvision.

use std::collections::BTreeMap;

use antiphon_core::spec::ResnetDepth;
use antiphon_data::{BatchInput, Images, InputShape};
use candle_core::{DType, Result, Tensor, Var};

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
use crate::nn::value::Value;

/// The structure of a residual network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Its name in messages.
    pub(super) kind: &'static str,
    /// Whether blocks have three convolutions, the last of which is four times as wide, instead of two.
    pub(super) bottlenecks: bool,
    /// The number of blocks of each stage.
    pub(super) blocks: [usize; 4],
    /// Channels within the blocks of each stage. The first number is also the width of the stem.
    pub(super) channels: [usize; 4],
}

impl Plan {
    /// The published structure with this depth.
    pub(super) fn of(depth: ResnetDepth) -> Self {
        let (kind, bottlenecks, blocks) = match depth {
            ResnetDepth::Eighteen => ("resnet18", false, [2, 2, 2, 2]),
            ResnetDepth::ThirtyFour => ("resnet34", false, [3, 4, 6, 3]),
            ResnetDepth::Fifty => ("resnet50", true, [3, 4, 6, 3]),
        };
        Self { kind, bottlenecks, blocks, channels: [64, 128, 256, 512] }
    }
}

/// Convolution without bias, batch norm.
struct Convolution {
    kernel: Var,
    stride: usize,
    padding: usize,
    norm: BatchNorm,
}

impl Convolution {
    fn new(
        made: &mut Parameters<'_>,
        (name, norm): (&str, &str),
        (inputs, outputs): (usize, usize),
        (size, stride): (usize, usize),
    ) -> Result<Self> {
        // He et al. 2015, by outputs, as in torchvision.
        let deviation = (2.0 / (size * size * outputs) as f64).sqrt();
        let kernel = made.normal(format!("{name}.weight"), (outputs, inputs, size, size), deviation)?;
        Ok(Self { kernel, stride, padding: size / 2, norm: BatchNorm::new(made, norm, outputs, 1.0)? })
    }

    fn forward(&self, pass: &mut Pass<'_>, x: &Value, residual: Option<&Value>, after: Activation) -> Result<Value> {
        let x = convolution(x, &pass.parameter(&self.kernel), self.stride, self.padding)?;
        self.norm.forward(pass, &x, residual, after)
    }
}

/// Two or three convolutions and a shortcut that is added to their output.
struct Block {
    convolutions: Vec<Convolution>,
    /// The convolution of the shortcut, if the shape changes.
    shortcut: Option<Convolution>,
}

impl Block {
    fn forward(&self, pass: &mut Pass<'_>, x: &Value) -> Result<Value> {
        let mut inner = x.clone();
        let (last, first) = self.convolutions.split_last().expect("a block has two convolutions at least");
        for convolution in first {
            inner = convolution.forward(pass, &inner, None, Activation::Relu)?;
        }
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(pass, x, None, Activation::Identity)?,
            None => x.clone(),
        };
        last.forward(pass, &inner, Some(&residual), Activation::Relu)
    }

    /// The batch norms in the order of a pass.
    fn norms(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        let last = self.convolutions.len() - 1;
        let (first, last) = self.convolutions.split_at_mut(last);
        let all = first.iter_mut().chain(&mut self.shortcut).chain(last);
        all.map(|convolution| &mut convolution.norm)
    }

    fn shared_norms(&self) -> impl Iterator<Item = &BatchNorm> {
        let last = self.convolutions.len() - 1;
        let (first, last) = self.convolutions.split_at(last);
        first.iter().chain(&self.shortcut).chain(last).map(|convolution| &convolution.norm)
    }
}

/// Builds the blocks, one after the other.
struct Builder<'a, 'b> {
    made: &'a mut Parameters<'b>,
    bottlenecks: bool,
    /// Output channels of the last block.
    channels: usize,
}

impl Builder<'_, '_> {
    fn block(&mut self, name: &str, inner: usize, stride: usize) -> Result<Block> {
        // (channels, size, stride) of each convolution; a bottleneck has its stride in the middle convolution, as in
        // torchvision.
        let plan = if self.bottlenecks {
            vec![(inner, 1, 1), (inner, 3, stride), (4 * inner, 1, 1)]
        } else {
            vec![(inner, 3, stride), (inner, 3, 1)]
        };
        let first = self.channels;
        let mut convolutions = Vec::new();
        for (i, (outputs, size, stride)) in plan.into_iter().enumerate() {
            let names = (format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1));
            let channels = (self.channels, outputs);
            convolutions.push(Convolution::new(self.made, (&names.0, &names.1), channels, (size, stride))?);
            self.channels = outputs;
        }
        let shortcut = (stride != 1 || first != self.channels).then(|| {
            let names = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            Convolution::new(self.made, (&names.0, &names.1), (first, self.channels), (1, stride))
        });
        Ok(Block { convolutions, shortcut: shortcut.transpose()? })
    }
}

/// Stem, four stages of blocks, mean over all positions, and an adapter if s is another width.
pub(super) struct Resnet {
    shape: InputShape,
    stem: Convolution,
    blocks: Vec<Block>,
    natural: usize,
    adapter: Adapter,
    width: usize,
    activations: DType,
    parameters: Vec<(String, Var)>,
}

impl Resnet {
    pub(super) fn new(
        mut made: Parameters<'_>,
        plan: Plan,
        shape: &InputShape,
        width: usize,
    ) -> std::result::Result<Self, EncoderError> {
        let Plan { kind, bottlenecks, blocks: stages, channels: inner } = plan;
        let Some(Images { channels, .. }) = shape.images() else {
            let instead = if matches!(shape, InputShape::Tokens { .. }) { "`text` or `bert`" } else { "`mlp`" };
            return Err(EncoderError::WrongInput { kind, input: shape.clone(), instead });
        };
        let stem = Convolution::new(&mut made, ("conv1", "bn1"), (channels, inner[0]), (7, 2))?;
        let mut builder = Builder { made: &mut made, bottlenecks, channels: inner[0] };
        let mut blocks = Vec::new();
        for (stage, (count, inner)) in stages.into_iter().zip(inner).enumerate() {
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                blocks.push(builder.block(&format!("layer{}.{i}", stage + 1), inner, stride)?);
            }
        }
        let natural = builder.channels;
        let adapter = Adapter::new(&mut made, natural, width)?;
        let (activations, parameters) = (made.activations(), made.into_made());
        Ok(Self { shape: shape.clone(), stem, blocks, natural, adapter, width, activations, parameters })
    }

    fn norms(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        std::iter::once(&mut self.stem.norm).chain(self.blocks.iter_mut().flat_map(Block::norms))
    }
}

impl Encoder for Resnet {
    fn width(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn buffers(&self) -> std::result::Result<Vec<(String, Tensor)>, EncoderError> {
        let norms = std::iter::once(&self.stem.norm).chain(self.blocks.iter().flat_map(Block::shared_norms));
        let mut buffers = Vec::new();
        for norm in norms {
            buffers.extend(norm.buffers()?);
        }
        Ok(buffers)
    }

    fn load_buffers(&mut self, tensors: &BTreeMap<String, Tensor>) -> std::result::Result<(), EncoderError> {
        for norm in self.norms() {
            norm.load_buffers(tensors)?;
        }
        Ok(())
    }

    fn forward(&self, input: &BatchInput, mode: &Mode) -> std::result::Result<Forward, EncoderError> {
        let mut pass = Pass::new(mode, self.activations);
        let x = grid(input, &self.shape, &pass, &self.parameters)?;
        let mut x = self.stem.forward(&mut pass, &x, None, Activation::Relu)?;
        x = max_pool(&x, Window { size: 3, stride: 2, padding: 1 })?;
        for block in &self.blocks {
            x = block.forward(&mut pass, &x)?;
        }
        x = frame_mean(grid_mean(&x, (1, 1))?.reshape(((), self.natural))?, &self.shape)?;
        let features = self.adapter.forward(&mut pass, &x)?;
        Forward::new(&features, pass)
    }

    fn commit(&mut self, pending: Pending) {
        self.norms().zip(&pending.0).for_each(|(norm, batch)| norm.absorb(batch));
    }
}
