//! Layers: operators together with their parameters, and the pass that goes through them.

use std::collections::BTreeMap;

use antiphon_core::ids::{MicroShard, ModalityName};
use antiphon_core::rng;
use candle_core::{Device, Result, Tensor, Var};

use super::dropout::dropout;
use super::layer_norm::layer_norm;
use super::linear::{Activation, linear};
use super::norm_relu_pool::{ChannelStatistics, Origin, norm_relu_pool};
use super::parameters::Parameters;

/// Names the dropout masks of one step: the same key, the same masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropoutKey {
    /// The job's seed.
    pub seed: u64,
    /// Whose encoder it is.
    pub modality: ModalityName,
    /// Steps of this modality since the job began.
    pub step: u64,
    /// Which piece of the batch.
    pub shard: MicroShard,
}

/// What a forward pass is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A gradient will be asked for: dropout drops, normalisation takes the batch's own statistics.
    Train(DropoutKey),
    /// Predictions: no dropout, running statistics, nothing is remembered for a backward pass.
    Evaluate,
}

/// One forward pass on its way through the layers, always in the same order.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    mode: &'a Mode,
    /// Of each batch normalisation met so far.
    statistics: Vec<ChannelStatistics>,
    dropouts: u64,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(mode: &'a Mode) -> Self {
        Self { mode, statistics: Vec::new(), dropouts: 0 }
    }

    /// Batch statistics, in the order of the layers. Empty when evaluating.
    pub(crate) fn into_statistics(self) -> Vec<ChannelStatistics> {
        self.statistics
    }

    /// When evaluating, parameters are constants, so that candle lets go of each layer's input once it is used.
    pub(crate) fn parameter(&self, variable: &Var) -> Tensor {
        match self.mode {
            Mode::Train(_) => variable.as_tensor().clone(),
            Mode::Evaluate => variable.as_detached_tensor(),
        }
    }

    /// Drops each value with this probability and scales the rest up, when training.
    pub(crate) fn dropout(&mut self, input: &Tensor, probability: f64) -> Result<Tensor> {
        let Mode::Train(key) = self.mode else { return Ok(input.clone()) };
        let (shard, layer) = (key.shard.index, self.dropouts);
        self.dropouts += 1;
        if probability == 0.0 {
            return Ok(input.clone());
        }
        let path = ["dropout".into(), (&key.modality).into(), key.step.into(), shard.into(), layer.into()];
        dropout(input, probability, &mut rng::stream(key.seed, &path))
    }
}

/// `x Wᵀ + b`, with an activation.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Var,
    bias: Var,
}

impl Linear {
    /// Weights uniform within ±`gain`·√(3/inputs), that is of deviation `gain`/√inputs; biases 0.
    pub(crate) fn new(made: &mut Parameters<'_>, name: &str, inputs: usize, outputs: usize, gain: f64) -> Result<Self> {
        let bound = gain * (3.0 / inputs as f64).sqrt();
        let weight = made.uniform(format!("{name}.weight"), (outputs, inputs), bound)?;
        let bias = made.constant(format!("{name}.bias"), outputs, 0.0)?;
        Ok(Self { weight, bias })
    }

    pub(crate) fn forward(&self, pass: &Pass<'_>, input: &Tensor, activation: Activation) -> Result<Tensor> {
        linear(input, &pass.parameter(&self.weight), &pass.parameter(&self.bias), activation)
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    scale: Var,
    shift: Var,
}

impl LayerNorm {
    /// Rows of this deviation at the start.
    pub(crate) fn new(made: &mut Parameters<'_>, name: &str, width: usize, deviation: f64) -> Result<Self> {
        let scale = made.constant(format!("{name}.weight"), width, deviation)?;
        let shift = made.constant(format!("{name}.bias"), width, 0.0)?;
        Ok(Self { scale, shift })
    }

    pub(crate) fn forward(&self, pass: &Pass<'_>, input: &Tensor) -> Result<Tensor> {
        layer_norm(input, &pass.parameter(&self.scale), &pass.parameter(&self.shift))
    }
}

/// The share of a batch in the running statistics (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// Batch normalisation over (B, H, W), activation, max pooling.
#[derive(Debug, Clone)]
pub(crate) struct BatchNorm {
    name: String,
    scale: Var,
    shift: Var,
    /// In f32, as a checkpoint keeps it, so that a run goes on from one with the same bits.
    running_mean: Vec<f32>,
    running_variance: Vec<f32>,
}

impl BatchNorm {
    /// Channels of this deviation at the start.
    pub(crate) fn new(made: &mut Parameters<'_>, name: &str, channels: usize, deviation: f64) -> Result<Self> {
        let scale = made.constant(format!("{name}.weight"), channels, deviation)?;
        let shift = made.constant(format!("{name}.bias"), channels, 0.0)?;
        let (running_mean, running_variance) = (vec![0.0; channels], vec![1.0; channels]);
        Ok(Self { name: name.to_owned(), scale, shift, running_mean, running_variance })
    }

    /// Normalises (B, C, H, W), activates and pools over P × P windows. Training normalises by the batch's own statistics,
    /// by the running ones where those would be of a single number per channel (B = H = W = 1).
    pub(crate) fn forward<const P: usize>(
        &self,
        pass: &mut Pass<'_>,
        input: &Tensor,
        activation: Activation,
    ) -> Result<Tensor> {
        let affine = (&pass.parameter(&self.scale), &pass.parameter(&self.shift));
        if *pass.mode == Mode::Evaluate {
            return norm_relu_pool::<P>(input, affine, (&self.running(), Origin::Running), activation);
        }
        let statistics = ChannelStatistics::of(input)?;
        let out = if statistics.count < 2 {
            // One number less its own mean says nothing, whatever the input is.
            norm_relu_pool::<P>(input, affine, (&self.running(), Origin::Running), activation)
        } else {
            norm_relu_pool::<P>(input, affine, (&statistics, Origin::Batch), activation)
        };
        pass.statistics.push(statistics);
        out
    }

    fn running(&self) -> ChannelStatistics {
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect();
        ChannelStatistics { mean: wide(&self.running_mean), variance: wide(&self.running_variance), count: 0 }
    }

    /// `running ← (1 − 0.1) running + 0.1 batch`, the variance with n − 1 in its denominator; nothing of a single number,
    /// which has no variance.
    pub(crate) fn absorb(&mut self, batch: &ChannelStatistics) {
        if batch.count < 2 {
            return;
        }
        let unbiased = batch.count as f64 / (batch.count as f64 - 1.0);
        let blend = |old: &mut f32, new: f64| *old = (f64::from(*old) * (1.0 - MOMENTUM) + new * MOMENTUM) as f32;
        self.running_mean.iter_mut().zip(&batch.mean).for_each(|(old, new)| blend(old, *new));
        self.running_variance.iter_mut().zip(&batch.variance).for_each(|(old, new)| blend(old, new * unbiased));
    }

    /// Named in PyTorch's style, in f32.
    pub(crate) fn buffers(&self) -> Result<Vec<(String, Tensor)>> {
        let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let mean = (format!("{}.running_mean", self.name), tensor(&self.running_mean)?);
        let variance = (format!("{}.running_var", self.name), tensor(&self.running_variance)?);
        Ok(vec![mean, variance])
    }

    /// Takes over what [`Self::buffers`] gave; names that are not its own are left alone.
    pub(crate) fn load_buffers(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let read =
            |suffix: &str| tensors.get(&format!("{}.{suffix}", self.name)).map(Tensor::to_vec1::<f32>).transpose();
        let (mean, variance) = (read("running_mean")?, read("running_var")?);
        self.running_mean = mean.unwrap_or(std::mem::take(&mut self.running_mean));
        self.running_variance = variance.unwrap_or(std::mem::take(&mut self.running_variance));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn one_number_per_channel_is_normalised_by_the_running_statistics_and_leaves_them_alone() {
        let modality = ModalityName::try_from("m").expect("a name");
        let mut made = Parameters::new(1, &modality, DType::F32, &Device::Cpu);
        let mut norm = BatchNorm::new(&mut made, "norm", 2, 1.0).expect("made");
        let mode = Mode::Train(DropoutKey { seed: 1, modality: modality.clone(), step: 0, shard: MicroShard::WHOLE });
        let train = |norm: &mut BatchNorm, values: &[f32]| {
            let input = Tensor::from_slice(values, (values.len() / 2, 2, 1, 1), &Device::Cpu).expect("as many");
            let mut pass = Pass::new(&mode);
            let out = norm.forward::<1>(&mut pass, &input, Activation::Identity).expect("it fits");
            pass.into_statistics().iter().for_each(|batch| norm.absorb(batch));
            out.flatten_all().and_then(|out| out.to_vec1::<f32>()).expect("numbers")
        };
        train(&mut norm, &[1.0, 2.0, 5.0, -2.0]);
        let before = norm.running();
        assert_ne!((before.mean[0], before.variance[0]), (0.0, 1.0), "two samples were not absorbed");
        let out = train(&mut norm, &[3.0, -4.0]);
        for (channel, value) in [3.0, -4.0].into_iter().enumerate() {
            let expected = (value - before.mean[channel]) / (before.variance[channel] + 1e-5).sqrt();
            assert!((f64::from(out[channel]) - expected).abs() < 1e-5, "{} for {expected}", out[channel]);
        }
        assert_eq!(norm.running(), before);
    }
}
