//! Layers: operators with their parameters, and the forward pass through them.

use std::collections::BTreeMap;
use std::sync::Arc;

use antiphon_core::ids::{MicroShard, ModalityName};
use antiphon_core::rng;
use candle_core::{DType, Device, Result, Tensor, TensorId, Var};

use super::activation::Activation;
use super::batch_norm::{ChannelStatistics, Origin, batch_norm};
use super::cast::{narrow, widen};
use super::dropout::dropout;
use super::layer_norm::{EPSILON, layer_norm};
use super::linear::linear;
use super::parameters::Parameters;
use super::value::{Node, Tape, Value};

/// Identifies the dropout masks of one step. The same key gives the same masks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropoutKey {
    /// The job's seed.
    pub seed: u64,
    /// The modality of the encoder.
    pub modality: ModalityName,
    /// Steps of this modality since the start of the job.
    pub step: u64,
    /// The micro-shard of the batch.
    pub shard: MicroShard,
}

/// Parameters that are not trained. They enter a pass as constants, so nothing is computed or stored for their
/// gradients. If everything before them is frozen too, the backward pass ends there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frozen(Vec<TensorId>);

impl Frozen {
    /// No frozen parameters.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These parameters are frozen.
    pub fn new<'a>(parameters: impl IntoIterator<Item = &'a Var>) -> Self {
        Self(parameters.into_iter().map(|variable| variable.as_tensor().id()).collect())
    }

    pub(crate) fn contains(&self, variable: &Var) -> bool {
        self.0.contains(&variable.as_tensor().id())
    }
}

/// The purpose of a forward pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Training: gradients of all parameters but the frozen ones follow. Dropout is active, and normalisations use the
    /// batch's own statistics, even those with frozen parameters.
    Train(DropoutKey, Frozen),
    /// Prediction: no dropout, running statistics, and nothing is stored for a backward pass.
    Evaluate,
}

/// One forward pass through the layers, which are always called in the same order.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    mode: &'a Mode,
    /// The numbers that flow between layers.
    activations: DType,
    /// The tape, in training only.
    tape: Option<Arc<Tape>>,
    variables: Variables,
    /// The statistics of each batch normalisation so far.
    statistics: Vec<ChannelStatistics>,
    dropouts: u64,
}

/// The trained parameters of a pass, and their values on its tape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables(Vec<(TensorId, Value)>);

impl Variables {
    fn value(&self, variable: &Var) -> Option<&Value> {
        self.0.iter().find(|(id, _)| *id == variable.as_tensor().id()).map(|(_, value)| value)
    }

    /// The number of each of these parameters on the tape. None if the pass did not use it.
    pub(crate) fn numbers(&self, parameters: &[(String, Var)]) -> Vec<Option<usize>> {
        parameters.iter().map(|(_, variable)| self.value(variable)?.node().map(Node::number)).collect()
    }
}

impl<'a> Pass<'a> {
    pub(crate) fn new(mode: &'a Mode, activations: DType) -> Self {
        let tape = matches!(mode, Mode::Train(..)).then(Arc::default);
        Self { mode, activations, tape, variables: Variables::default(), statistics: Vec::new(), dropouts: 0 }
    }

    /// The numbers that flow between layers.
    pub(crate) fn activations(&self) -> DType {
        self.activations
    }

    /// Converts a value that depends only on parameters to the type of activations.
    pub(crate) fn enter(&self, x: &Value) -> Result<Value> {
        if self.activations == DType::BF16 { narrow(x) } else { Ok(x.clone()) }
    }

    /// Converts the output of the last layer to the type of features.
    pub(crate) fn leave(&self, x: &Value) -> Result<Value> {
        if self.activations == DType::BF16 { widen(x) } else { Ok(x.clone()) }
    }

    /// The frozen parameters, in training only.
    pub(crate) fn frozen(&self) -> Option<&Frozen> {
        match self.mode {
            Mode::Train(_, frozen) => Some(frozen),
            Mode::Evaluate => None,
        }
    }

    /// The trained parameters of the pass, and the batch statistics in the order of the layers. Both are empty in
    /// evaluation.
    pub(crate) fn finish(self) -> (Variables, Vec<ChannelStatistics>) {
        (self.variables, self.statistics)
    }

    /// The value of a parameter. In evaluation, and for a frozen parameter, it is a constant, so nothing is recorded.
    pub(crate) fn parameter(&mut self, variable: &Var) -> Value {
        let frozen = matches!(self.mode, Mode::Train(_, frozen) if frozen.contains(variable));
        let Some(tape) = self.tape.as_ref().filter(|_| !frozen) else {
            return Value::constant(variable.as_detached_tensor());
        };
        if let Some(value) = self.variables.value(variable) {
            return value.clone();
        }
        let value = tape.variable(variable.as_detached_tensor());
        self.variables.0.push((variable.as_tensor().id(), value.clone()));
        value
    }

    /// In training, sets each value to 0 with this probability and scales up the others.
    pub(crate) fn dropout(&mut self, input: &Value, probability: f64) -> Result<Value> {
        let Mode::Train(key, _) = self.mode else { return Ok(input.clone()) };
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
    /// Weights are uniform within ±`gain`·√(3/inputs), so their deviation is `gain`/√inputs. Biases are 0.
    pub(crate) fn new(made: &mut Parameters<'_>, name: &str, inputs: usize, outputs: usize, gain: f64) -> Result<Self> {
        let bound = gain * (3.0 / inputs as f64).sqrt();
        let weight = made.uniform(format!("{name}.weight"), (outputs, inputs), bound)?;
        let bias = made.constant(format!("{name}.bias"), outputs, 0.0)?;
        Ok(Self { weight, bias })
    }

    /// Weights are normal with this deviation. Biases are 0.
    pub(crate) fn normal(
        made: &mut Parameters<'_>,
        name: &str,
        inputs: usize,
        outputs: usize,
        deviation: f64,
    ) -> Result<Self> {
        let weight = made.normal(format!("{name}.weight"), (outputs, inputs), deviation)?;
        let bias = made.constant(format!("{name}.bias"), outputs, 0.0)?;
        Ok(Self { weight, bias })
    }

    pub(crate) fn forward(&self, pass: &mut Pass<'_>, input: &Value, activation: Activation) -> Result<Value> {
        let (weight, bias) = (pass.parameter(&self.weight), pass.parameter(&self.bias));
        linear(input, &weight, &bias, activation)
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    scale: Var,
    shift: Var,
    epsilon: f64,
}

impl LayerNorm {
    /// With PyTorch's ε.
    pub(crate) fn new(made: &mut Parameters<'_>, name: &str, width: usize) -> Result<Self> {
        Self::with_epsilon(made, name, width, EPSILON)
    }

    /// With this ε added to variances.
    pub(crate) fn with_epsilon(made: &mut Parameters<'_>, name: &str, width: usize, epsilon: f64) -> Result<Self> {
        let scale = made.constant(format!("{name}.weight"), width, 1.0)?;
        let shift = made.constant(format!("{name}.bias"), width, 0.0)?;
        Ok(Self { scale, shift, epsilon })
    }

    pub(crate) fn forward(&self, pass: &mut Pass<'_>, input: &Value) -> Result<Value> {
        let (scale, shift) = (pass.parameter(&self.scale), pass.parameter(&self.shift));
        layer_norm(input, &scale, &shift, self.epsilon)
    }
}

/// The weight of a batch in the running statistics (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// Batch normalisation over all dimensions but the last one, the channels.
#[derive(Debug, Clone)]
pub(crate) struct BatchNorm {
    name: String,
    scale: Var,
    shift: Var,
    /// In f32, as in checkpoints, so that a resumed run has the same bits.
    running_mean: Vec<f32>,
    running_variance: Vec<f32>,
}

impl BatchNorm {
    /// A normalisation whose channels initially have this deviation.
    pub(crate) fn new(made: &mut Parameters<'_>, name: &str, channels: usize, deviation: f64) -> Result<Self> {
        let scale = made.constant(format!("{name}.weight"), channels, deviation)?;
        let shift = made.constant(format!("{name}.bias"), channels, 0.0)?;
        let (running_mean, running_variance) = (vec![0.0; channels], vec![1.0; channels]);
        Ok(Self { name: name.to_owned(), scale, shift, running_mean, running_variance })
    }

    /// Normalises (…, C), adds the residual if there is one, and applies the activation. Training normalises by the
    /// batch's own statistics, or by the running ones if the batch has a single number per channel.
    pub(crate) fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Value,
        residual: Option<&Value>,
        activation: Activation,
    ) -> Result<Value> {
        let affine = (&pass.parameter(&self.scale), &pass.parameter(&self.shift));
        if *pass.mode == Mode::Evaluate {
            return batch_norm(input, affine, (&self.running(), Origin::Running), residual, activation);
        }
        let statistics = ChannelStatistics::of(&input.tensor().contiguous()?)?;
        let out = if statistics.count < 2 {
            // A single number minus its own mean is 0 for every input.
            batch_norm(input, affine, (&self.running(), Origin::Running), residual, activation)
        } else {
            batch_norm(input, affine, (&statistics, Origin::Batch), residual, activation)
        };
        pass.statistics.push(statistics);
        out
    }

    fn running(&self) -> ChannelStatistics {
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect();
        ChannelStatistics::known(wide(&self.running_mean), wide(&self.running_variance), 0)
    }

    /// `running ← (1 − 0.1) running + 0.1 batch`, with n − 1 in the denominator of the variance. A single number has no
    /// variance and is ignored.
    pub(crate) fn absorb(&mut self, batch: &ChannelStatistics) {
        if batch.count < 2 {
            return;
        }
        let unbiased = batch.count as f64 / (batch.count as f64 - 1.0);
        let blend = |old: &mut f32, new: f64| *old = (f64::from(*old) * (1.0 - MOMENTUM) + new * MOMENTUM) as f32;
        self.running_mean.iter_mut().zip(&batch.mean).for_each(|(old, new)| blend(old, *new));
        self.running_variance.iter_mut().zip(&batch.variance).for_each(|(old, new)| blend(old, new * unbiased));
    }

    /// The running statistics, named in PyTorch's style, in f32.
    pub(crate) fn buffers(&self) -> Result<Vec<(String, Tensor)>> {
        let tensor = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let mean = (format!("{}.running_mean", self.name), tensor(&self.running_mean)?);
        let variance = (format!("{}.running_var", self.name), tensor(&self.running_variance)?);
        Ok(vec![mean, variance])
    }

    /// Loads the result of [`Self::buffers`]. Other names are ignored.
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
    use antiphon_core::spec::Precision;

    use super::*;

    #[test]
    fn one_number_per_channel_uses_the_running_statistics() {
        let modality = ModalityName::try_from("m").expect("a name");
        let mut made = Parameters::new(1, &modality, Precision::F32.into(), &Device::Cpu);
        let mut norm = BatchNorm::new(&mut made, "norm", 2, 1.0).expect("made");
        let key = DropoutKey { seed: 1, modality: modality.clone(), step: 0, shard: MicroShard::WHOLE };
        let mode = Mode::Train(key, Frozen::none());
        let train = |norm: &mut BatchNorm, values: &[f32]| {
            let input = Tensor::from_slice(values, (values.len() / 2, 2), &Device::Cpu).expect("as many");
            let mut pass = Pass::new(&mode, DType::F32);
            let out = norm.forward(&mut pass, &Value::constant(input), None, Activation::Identity).expect("it fits");
            pass.finish().1.iter().for_each(|batch| norm.absorb(batch));
            out.tensor().flatten_all().and_then(|out| out.to_vec1::<f32>()).expect("numbers")
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
