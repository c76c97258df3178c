//! A convolution over sequences with a correct gradient.
//!
//! candle 0.11 computes the gradient of the kernel of `candle_nn::Conv1d` from a kernel that it reads in the wrong
//! order (`conv1d` of its CPU backend copies a kernel that is not contiguous and then multiplies by the original). The
//! loss still falls, only more slowly. This layer consists of shifts and one matrix product, whose gradients are
//! correct.

use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Conv1dConfig, Init, VarBuilder, init};

/// A convolution of (batch, inputs, steps) to (batch, outputs, steps'), for custom encoders. Its parameters have the
/// names, shapes and initial distributions of `candle_nn::conv1d`.
#[derive(Debug, Clone)]
pub struct Conv1d {
    /// (outputs, inputs / groups, kernel)
    weight: Tensor,
    bias: Tensor,
    config: Conv1dConfig,
}

/// Makes a convolution of `inputs` to `outputs` channels with a kernel of `kernel` steps.
///
/// # Errors
/// If the groups do not divide the channels, if kernel, stride or dilation are 0, or if the variables cannot be
/// created.
pub fn conv1d(
    inputs: usize,
    outputs: usize,
    kernel: usize,
    config: Conv1dConfig,
    variables: VarBuilder<'_>,
) -> Result<Conv1d> {
    let groups = config.groups;
    if groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
        bail!("a convolution of {inputs} to {outputs} channels cannot have {groups} groups: use a divisor of both")
    }
    if kernel == 0 || config.stride == 0 || config.dilation == 0 {
        bail!("a convolution needs a kernel, a stride and a dilation of at least 1")
    }
    let weight =
        variables.get_with_hints((outputs, inputs / groups, kernel), "weight", init::DEFAULT_KAIMING_NORMAL)?;
    let bound = 1.0 / (inputs as f64).sqrt();
    let bias = variables.get_with_hints(outputs, "bias", Init::Uniform { lo: -bound, up: bound })?;
    Ok(Conv1d { weight, bias, config })
}

impl Module for Conv1d {
    fn forward(&self, batch: &Tensor) -> Result<Tensor> {
        let Conv1dConfig { padding, stride, dilation, groups, .. } = self.config;
        let (outputs, inputs, kernel) = self.weight.dims3()?;
        let (samples, channels, steps) = batch.dims3()?;
        if channels != groups * inputs {
            bail!(
                "a convolution over {} channels was given {channels} channels: transpose or reshape its input",
                groups * inputs
            )
        }
        let reach = dilation * (kernel - 1) + 1;
        let Some(beyond) = (steps + 2 * padding).checked_sub(reach) else {
            bail!(
                "a kernel that covers {reach} steps was given {} steps: use a smaller kernel or more padding",
                steps + 2 * padding
            )
        };
        let outcome = beyond / stride + 1;
        // On the right, padding also completes the last stride. It is dropped below.
        let padded = batch.pad_with_zeros(2, padding, padding + stride - 1)?.reshape((samples, groups, inputs, ()))?;
        let tap = |tap: usize| padded.narrow(3, tap * dilation, outcome * stride).and_then(|tap| every(&tap, stride));
        // (batch, groups, kernel × inputs, steps'), and the weight in the same order.
        let columns = Tensor::cat(&(0..kernel).map(tap).collect::<Result<Vec<_>>>()?, 2)?.contiguous()?;
        let weight =
            self.weight.permute((0, 2, 1))?.contiguous()?.reshape((groups, outputs / groups, kernel * inputs))?;
        let convolved = weight.broadcast_matmul(&columns)?.reshape((samples, outputs, outcome))?;
        convolved.broadcast_add(&self.bias.reshape((1, outputs, 1))?)
    }
}

/// Every `stride`th element of the last dimension, whose size is a multiple of `stride`.
fn every(x: &Tensor, stride: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(x.clone());
    }
    let (samples, groups, channels, steps) = x.dims4()?;
    let strides = x.contiguous()?.reshape((samples, groups, channels, steps / stride, stride))?;
    strides.narrow(4, 0, 1)?.squeeze(4)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use candle_nn::VarMap;

    use super::*;
    use crate::nn::check::{assert_close, noise};

    /// Configurations that differ in every field, with a width that strides do not divide.
    fn configurations() -> impl Iterator<Item = (usize, Conv1dConfig)> {
        [(1, 0, 1, 1, 1), (3, 1, 1, 1, 1), (3, 2, 2, 1, 1), (4, 3, 3, 2, 2), (2, 0, 2, 3, 3), (5, 4, 1, 2, 6)]
            .into_iter()
            .map(|(kernel, padding, stride, dilation, groups)| {
                (kernel, Conv1dConfig { padding, stride, dilation, groups, ..Conv1dConfig::default() })
            })
    }

    fn input() -> Tensor {
        noise((2, 6, 11), 1).to_dtype(DType::F32).expect("numbers")
    }

    #[test]
    fn it_computes_what_candles_computes() {
        for (kernel, config) in configurations() {
            let map = VarMap::new();
            let variables = || VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
            let own = conv1d(6, 12, kernel, config, variables()).expect("made");
            let candles = candle_nn::conv1d(6, 12, kernel, config, variables()).expect("made");
            let [got, wanted] = [own.forward(&input()), candles.forward(&input())].map(|y| y.expect("computed"));
            assert_close(&got, &wanted, 1e-5);
        }
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        for (kernel, config) in configurations() {
            let map = VarMap::new();
            let layer =
                conv1d(6, 12, kernel, config, VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu)).expect("made");
            let input = Var::from_tensor(&input().to_dtype(DType::F64).expect("numbers")).expect("a variable");
            let loss = || layer.forward(&input).and_then(|y| y.sqr()?.sum_all()).expect("computed");
            let gradients = loss().backward().expect("computed");
            let mut variables = map.all_vars();
            variables.push(input.clone());
            for variable in variables {
                let (before, step) = (variable.copy().expect("a copy"), 1e-5);
                let direction = noise(before.shape(), 2);
                let moved = |by: f64| {
                    variable
                        .set(&(&before + (&direction * by).expect("moved")).expect("moved"))
                        .expect("the same shape");
                    loss().to_scalar::<f64>().expect("a number")
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                variable.set(&before).expect("the same shape");
                let gradient = gradients.get(&variable).expect("a gradient");
                let wanted = (gradient * &direction).and_then(|g| g.sum_all()?.to_scalar::<f64>()).expect("a number");
                assert!((slope - wanted).abs() < 1e-6 * wanted.abs().max(1.0), "{config:?}: {slope} {wanted}");
            }
        }
    }

    #[test]
    fn what_cannot_be_convolved_says_why() {
        let map = VarMap::new();
        let variables = || VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let message = |result: Result<String>| result.expect_err("it is refused").to_string();
        let groups = Conv1dConfig { groups: 4, ..Conv1dConfig::default() };
        let refused = message(conv1d(6, 12, 3, groups, variables()).map(|_| String::new()));
        assert!(refused.contains("6 to 12 channels cannot have 4 groups"), "{refused}");
        let layer = conv1d(6, 12, 12, Conv1dConfig::default(), variables()).expect("made");
        let refused = message(layer.forward(&input()).map(|_| String::new()));
        assert!(refused.contains("covers 12 steps was given 11 steps"), "{refused}");
    }
}
