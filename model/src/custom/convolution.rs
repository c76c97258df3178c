//! A convolution over sequences whose gradient is right.
//!
//! candle 0.11 computes the gradient of the kernel of `candle_nn::Conv1d` from a kernel that it reads in the wrong order
//! (`conv1d` of its CPU backend copies a kernel that is not contiguous and then multiplies by the original). The loss falls
//! all the same, only more slowly. This layer is made of shifts and one matrix product, whose gradients are right.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Conv1dConfig, Init, VarBuilder, init};

/// A convolution of (batch, inputs, steps) to (batch, outputs, steps'), for custom encoders. Its parameters have the names,
/// shapes and initial distributions of those of `candle_nn::conv1d`.
#[derive(Debug, Clone)]
pub struct Conv1d {
    /// (outputs, inputs, kernel)
    weight: Tensor,
    bias: Tensor,
    padding: usize,
    dilation: usize,
}

/// Makes a convolution of `inputs` to `outputs` channels with a kernel of `kernel` steps.
///
/// # Errors
/// The configuration has groups or a stride, which this layer does not have, or the variables cannot be made.
pub fn conv1d(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    config: Conv1dConfig,
    variables: VarBuilder<'_>,
) -> Result<Conv1d> {
    if config.groups != 1 || config.stride != 1 {
        bail!("a convolution of groups or strides is not supported: use 1 for both")
    }
    let weight = variables.get_with_hints((outputs, inputs, kernel), "weight", init::DEFAULT_KAIMING_NORMAL)?;
    let bound = 1.0 / (inputs as f64).sqrt();
    let bias = variables.get_with_hints(outputs, "bias", Init::Uniform { lo: -bound, up: bound })?;
    Ok(Conv1d { weight, bias, padding: config.padding, dilation: config.dilation })
}

impl Module for Conv1d {
    fn forward(&self, batch: &Tensor) -> Result<Tensor> {
        let (outputs, inputs, kernel) = self.weight.dims3()?;
        let padded = batch.pad_with_zeros(2, self.padding, self.padding)?;
        let reach = self.dilation * (kernel - 1);
        let Some(steps) = padded.dim(2)?.checked_sub(reach).filter(|steps| *steps > 0) else {
            bail!("a kernel that reaches over {} steps was given {}", reach + 1, padded.dim(2)?)
        };
        let taps = (0..kernel).map(|tap| padded.narrow(2, tap * self.dilation, steps)).collect::<Result<Vec<_>>>()?;
        // (batch, kernel × inputs, steps), and the weight in the same order.
        let columns = Tensor::cat(&taps, 1)?;
        let weight = self.weight.permute((0, 2, 1))?.contiguous()?.reshape((outputs, kernel * inputs))?;
        weight.broadcast_matmul(&columns)?.broadcast_add(&self.bias.reshape((1, outputs, 1))?)
    }
}
