//! A registered network as an [`Encoder`].

use std::cell::Cell;
use std::collections::BTreeMap;

use antiphon_core::ids::{EncoderName, ModalityName};
use antiphon_core::spec::{EncoderSpec, OptionValue, Precision};
use antiphon_data::{BatchInput, InputShape};
use candle_core::{DType, Device, Module as _, Result as TensorResult, Tensor, Var};
use candle_nn::{Linear, VarBuilder};

use super::blueprint::Blueprint;
use super::dropout::CurrentStep;
use super::error::BuildError;
use super::gradient_check::{self, Mismatch, SAMPLES};
use super::options::Options;
use super::registry::{Encoders, Network};
use super::variables::{Backend, Variables};
use crate::encoder::{self, Encoder, EncoderError, Forward, Mode, Numbers, adapter_gain};
use crate::nn::parameters::Parameters;

/// The size of the batch of zeros that measures the width of a network's features.
const PROBE: usize = 2;

/// The parameters for building an encoder.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The number format that it computes in.
    pub precision: Precision,
    /// The shape of a sample.
    pub shape: &'a InputShape,
    /// s, the width of the features.
    pub width: usize,
    /// The job's seed.
    pub seed: u64,
    /// The modality of the encoder.
    pub modality: &'a ModalityName,
    /// The device that it computes on.
    pub device: &'a Device,
}

impl Encoders {
    /// As [`encoder::build`], with the registered encoders besides the built-in ones.
    ///
    /// # Errors
    /// As there, and if the encoder is not registered, or its function refuses or returns no features.
    pub fn build(&self, spec: &EncoderSpec, setting: &Setting<'_>) -> Result<Box<dyn Encoder>, EncoderError> {
        let Setting { precision, shape, width, seed, modality, device } = *setting;
        let EncoderSpec::Custom { name, options } = spec else {
            return encoder::build(precision, spec, shape, width, seed, modality, device);
        };
        if precision != Precision::F32 {
            return Err(EncoderError::CustomPrecision { name: name.clone() });
        }
        Ok(Box::new(Plan { name, options, setting: *setting }.build(self)?))
    }
}

/// A custom encoder before it is built.
struct Plan<'a> {
    name: &'a EncoderName,
    options: &'a BTreeMap<String, OptionValue>,
    setting: Setting<'a>,
}

impl Plan<'_> {
    fn build(&self, encoders: &Encoders) -> Result<Custom, EncoderError> {
        let Some(build) = encoders.get(self.name) else {
            return Err(EncoderError::NotRegistered { name: self.name.clone(), registered: encoders.names() });
        };
        let failed = |error: BuildError| EncoderError::Network { name: self.name.clone(), reason: error.to_string() };
        let numbers = Numbers::from(Precision::F32);
        let variables =
            Variables::new(Parameters::new(self.setting.seed, self.setting.modality, numbers, self.setting.device));
        let step = CurrentStep::default();
        let blueprint = Blueprint {
            modality: self.setting.modality,
            input: self.setting.shape,
            width: self.setting.width,
            options: Options::new(self.options),
            step: step.clone(),
            checks_gradients: Cell::new(true),
        };
        let builder = VarBuilder::from_backend(Box::new(Backend(&variables)), DType::F32, self.setting.device.clone());
        let network = build(&blueprint, builder).map_err(failed)?;
        blueprint.options.check_all_read().map_err(|error| failed(error.into()))?;
        let own_width = self.own_width(&network).map_err(failed)?;
        let adapter = (own_width != self.setting.width).then(|| self.adapter(&variables, own_width)).transpose()?;
        Ok(Custom {
            name: self.name.clone(),
            network,
            adapter,
            parameters: variables.into_made(),
            shape: self.setting.shape.clone(),
            width: self.setting.width,
            device: self.setting.device.clone(),
            step,
            checks_gradients: blueprint.checks_gradients.get(),
            checked: Cell::new(false),
        })
    }

    /// The width of the network's features, measured with a batch of zeros.
    fn own_width(&self, network: &Network) -> Result<usize, BuildError> {
        let rows = PROBE * self.setting.shape.frames();
        let zeros = match *self.setting.shape {
            InputShape::Features { width } => Tensor::zeros((rows, width), DType::F32, self.setting.device)?,
            InputShape::Grid { channels, height, width } | InputShape::Clip { channels, height, width, .. } => {
                Tensor::zeros((rows, channels, height, width), DType::F32, self.setting.device)?
            }
            InputShape::Tokens { max_tokens, .. } => {
                Tensor::zeros((rows, max_tokens), DType::U32, self.setting.device)?
            }
        };
        let features = network.forward_t(&zeros, false)?;
        match *features.dims() {
            [samples, width] if samples == rows && width > 0 && features.dtype() == DType::F32 => Ok(width),
            _ => Err(BuildError::refused(format!(
                "for a batch of {rows} it returns {:?} {:?}; it must return features of shape [{rows}, width] in F32",
                features.dtype(),
                features.dims(),
            ))),
        }
    }

    /// The linear map after every network whose own width is not s.
    fn adapter(&self, variables: &Variables<'_>, own_width: usize) -> TensorResult<Linear> {
        let mut made = variables.lock();
        let bound = adapter_gain(self.setting.width) * (3.0 / own_width as f64).sqrt();
        let weight = made.uniform("adapter.weight".to_owned(), (self.setting.width, own_width), bound)?;
        let bias = made.constant("adapter.bias".to_owned(), self.setting.width, 0.0)?;
        Ok(Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone())))
    }
}

/// A network with its parameters.
struct Custom {
    name: EncoderName,
    network: Network,
    adapter: Option<Linear>,
    /// By name.
    parameters: Vec<(String, Var)>,
    shape: InputShape,
    /// s.
    width: usize,
    device: Device,
    step: CurrentStep,
    /// Whether its gradients are compared with finite differences.
    checks_gradients: bool,
    /// Whether the network was checked with its first training batch.
    checked: Cell<bool>,
}

impl Custom {
    /// The network's own features of a batch (B, any width).
    fn own_features(&self, batch: &Tensor, mode: &Mode) -> TensorResult<Tensor> {
        let key = match mode {
            Mode::Train(key, _) => Some(key.clone()),
            Mode::Evaluate => None,
        };
        let train = key.is_some();
        self.step.set(key);
        let features = self.network.forward_t(batch, train);
        self.step.set(None);
        frame_mean(&features?, self.shape.frames())
    }

    /// H, given the network's own features.
    fn adapted(&self, own: Tensor) -> TensorResult<Tensor> {
        match &self.adapter {
            Some(adapter) => adapter.forward(&own),
            None => Ok(own),
        }
    }

    /// Checks the network with its first training batch for mistakes that would stay hidden later: random numbers that
    /// do not depend on the step, and gradients that are not derivatives.
    fn check(&self, batch: &Tensor, mode: &Mode, own: &Tensor) -> Result<(), EncoderError> {
        let Mode::Train(_, frozen) = mode else { return Ok(()) };
        if self.checked.get() {
            return Ok(());
        }
        if bits(&self.own_features(batch, mode)?)? != bits(own)? {
            return Err(EncoderError::NotRepeatable { name: self.name.clone() });
        }
        if self.checks_gradients {
            let few = batch.narrow(0, 0, batch.dim(0)?.min(SAMPLES * self.shape.frames()))?.contiguous()?;
            let forward = || self.adapted(self.own_features(&few, mode)?);
            if let Some(Mismatch { parameter, ratio }) = gradient_check::mismatch(&self.parameters, frozen, forward)? {
                return Err(EncoderError::NotDerivative { name: self.name.clone(), parameter, ratio });
            }
        }
        self.checked.set(true);
        Ok(())
    }
}

/// The mean over the frames of each sample of (B · frames, N): (B, N).
fn frame_mean(features: &Tensor, frames: usize) -> TensorResult<Tensor> {
    if frames == 1 {
        return Ok(features.clone());
    }
    let (rows, width) = features.dims2()?;
    features.reshape((rows / frames, frames, width))?.mean(1)
}

fn bits(tensor: &Tensor) -> TensorResult<Vec<u32>> {
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

impl Encoder for Custom {
    fn width(&self) -> usize {
        self.width
    }

    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn forward(&self, input: &BatchInput, mode: &Mode) -> Result<Forward, EncoderError> {
        let batch = encoder::tensor_of(input, &self.shape, &self.device)?;
        let own = self.own_features(&batch, mode)?;
        self.check(&batch, mode, &own)?;
        Ok(Forward::of_candle(self.adapted(own)?, mode))
    }
}
