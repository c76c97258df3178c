//! A temporal convolution (Bai et al. 2018): blocks of dilated convolutions along time, each around a residual
//! connection.
//!
//! It reads spectrograms and images, whose columns are the steps, and feature vectors that are sequences: with
//! `options: {steps: 20}` a vector of 260 features is 20 steps of 13.

use antiphon::{Blueprint, BuildError, Conv1d, Dropout, InputShape, conv1d};
use candle_core::{D, Module as _, ModuleT, Result, Tensor};
use candle_nn::{Conv1dConfig, GroupNorm, VarBuilder, group_norm};

/// Number of groups of channels that are normalised together.
const GROUPS: usize = 4;

/// A sample as a sequence.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    /// Size of one step.
    channels: usize,
    steps: usize,
    /// Whether steps are contiguous, as in a vector. In an image, the rows of each channel are contiguous.
    steps_first: bool,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Tcn {
    sequence: Sequence,
    blocks: Vec<Block>,
}

/// Two convolutions of the same dilation.
#[derive(Debug)]
struct Block {
    convolutions: [(Conv1d, GroupNorm); 2],
    /// A convolution on the residual connection, if the number of channels changes.
    shortcut: Option<Conv1d>,
    dropout: Dropout,
}

impl Tcn {
    /// Options: `channels` of each block, `kernel`, `dropout`, and `steps` of a feature vector.
    pub(crate) fn new(blueprint: &Blueprint<'_>, variables: VarBuilder<'_>) -> std::result::Result<Self, BuildError> {
        let sequence = Sequence::of(blueprint)?;
        let channels = blueprint.options.sizes("channels", &[32, 32])?;
        if let Some(odd) = channels.iter().find(|channels| !channels.is_multiple_of(GROUPS)) {
            let rule = format!("{odd} is not a multiple of {GROUPS}");
            return Err(blueprint.options.refuse("channels", rule).into());
        }
        let kernel = blueprint.options.size("kernel", 3)?;
        let dropout = blueprint.options.share("dropout", 0.0)?;
        let mut blocks = Vec::with_capacity(channels.len());
        let mut inputs = sequence.channels;
        for (number, outputs) in channels.into_iter().enumerate() {
            let name = format!("blocks.{number}");
            let dropout = blueprint.dropout(&name, dropout);
            blocks.push(Block::new(inputs, outputs, kernel, 1 << number, dropout, variables.pp(name))?);
            inputs = outputs;
        }
        Ok(Self { sequence, blocks })
    }
}

impl Sequence {
    fn of(blueprint: &Blueprint<'_>) -> std::result::Result<Self, BuildError> {
        match *blueprint.input {
            InputShape::Grid { channels, height, width } => {
                Ok(Self { channels: channels * height, steps: width, steps_first: false })
            }
            InputShape::Features { width } => {
                let steps = blueprint.options.size("steps", 1)?;
                if !width.is_multiple_of(steps) {
                    return Err(blueprint.options.refuse("steps", format!("it must divide {width} features")).into());
                }
                Ok(Self { channels: width / steps, steps, steps_first: true })
            }
            _ => Err(BuildError::refused("it reads spectrograms, images and features, not text or clips")),
        }
    }

    /// A batch as (B, channels, steps).
    fn read(self, batch: &Tensor) -> Result<Tensor> {
        let Self { channels, steps, steps_first } = self;
        let samples = batch.dim(0)?;
        match steps_first {
            true => batch.reshape((samples, steps, channels))?.transpose(1, 2)?.contiguous(),
            false => batch.reshape((samples, channels, steps)),
        }
    }
}

impl Block {
    fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        dilation: usize,
        dropout: Dropout,
        variables: VarBuilder<'_>,
    ) -> Result<Self> {
        let layer = |inputs: usize, name: &str| -> Result<(Conv1d, GroupNorm)> {
            // Padding is on both sides; `forward` drops the end, so that no step sees a later one.
            let config = Conv1dConfig { padding: (kernel - 1) * dilation, dilation, ..Conv1dConfig::default() };
            let convolution = conv1d(inputs, outputs, kernel, config, variables.pp(name))?;
            Ok((convolution, group_norm(GROUPS, outputs, 1e-5, variables.pp(name).pp("norm"))?))
        };
        let convolutions = [layer(inputs, "first")?, layer(outputs, "second")?];
        let shortcut = (inputs != outputs)
            .then(|| conv1d(inputs, outputs, 1, Conv1dConfig::default(), variables.pp("shortcut")))
            .transpose()?;
        Ok(Self { convolutions, shortcut, dropout })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let steps = x.dim(D::Minus1)?;
        let mut inner = x.clone();
        for (convolution, norm) in &self.convolutions {
            let convolved = convolution.forward(&inner)?.narrow(D::Minus1, 0, steps)?.contiguous()?;
            inner = self.dropout.forward_t(&norm.forward(&convolved)?.relu()?, train)?;
        }
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x)?,
            None => x.clone(),
        };
        (inner + residual)?.relu()
    }
}

impl ModuleT for Tcn {
    /// The mean of the last block's output over time: (B, channels).
    fn forward_t(&self, batch: &Tensor, train: bool) -> Result<Tensor> {
        let mut sequence = self.sequence.read(batch)?;
        for block in &self.blocks {
            sequence = block.forward(&sequence, train)?;
        }
        sequence.mean(D::Minus1)
    }
}
