//! Encoders: f_m, from a batch of one modality to features (B, s).
//!
//! ```text
//! mlp         features → (linear, ReLU, dropout)… ─────────────────────────────┐
//! cnn         grid → (convolution, batch norm, ReLU, pooling)… → cells → norm ─┤
//! resnet18…   grid → stem → residual blocks → mean over the places ────────────┼→ adapter → features (B, s)
//! vit         grid → patches → transformer blocks → class token or mean ───────┤
//! text, bert  tokens → embedding → transformer blocks → pooling ───────────────┘
//! ```
//!
//! Of a clip of F frames each goes through all of that as a sample of its own, so that a batch norm sees B·F images; what comes
//! out before the adapter is averaged over the frames (`frame_mean`).
//!
//! Invariants:
//! 1. A forward pass changes nothing: what training has to remember of it (running statistics) comes out as [`Pending`] and
//!    is taken in by [`Encoder::commit`] once the turn it belongs to was applied.
//! 2. Parameters at the start are a function of seed, modality and parameter name; dropout of the [`DropoutKey`].
//! 3. Every trained parameter gets a gradient, or [`backward`] says which did not; none is computed of a [`Frozen`] one.
//! 4. When evaluating, a sample's features do not depend on its batch, to the last bit.
//!
//! Nothing here knows of the head, turns or optimizers.

mod adapter;
mod bert;
mod cnn;
mod error;
mod mlp;
mod resnet;
mod text;
mod vit;

use std::collections::BTreeMap;

use antiphon_core::ids::ModalityName;
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{EncoderSpec, Precision};
use candle_core::{DType, Device, Tensor, Var};

pub use self::error::EncoderError;
use crate::data::{BatchInput, InputShape};
use crate::nn::batch_norm::ChannelStatistics;
pub use crate::nn::layer::{DropoutKey, Frozen, Mode};
use crate::nn::layer::{Pass, Variables};
pub use crate::nn::parameters::Numbers;
use crate::nn::parameters::Parameters;
use crate::nn::segment_mean::segment_mean;
use crate::nn::value::{Place, Value, backward as backward_on_tape};

/// f_m with its parameters θ_m.
pub trait Encoder: Send {
    /// s, the width of the features.
    fn width(&self) -> usize;

    /// What can be trained, named in PyTorch's style, always in the same order.
    fn parameters(&self) -> &[(String, Var)];

    /// What is kept beside the parameters (running statistics), always in the same order, in f32.
    ///
    /// # Errors
    /// When candle fails.
    fn buffers(&self) -> Result<Vec<(String, Tensor)>, EncoderError> {
        Ok(Vec::new())
    }

    /// Takes over buffers that [`Encoder::buffers`] gave. Use [`restore`], which checks them.
    ///
    /// # Errors
    /// When candle fails.
    fn load_buffers(&mut self, _tensors: &BTreeMap<String, Tensor>) -> Result<(), EncoderError> {
        Ok(())
    }

    /// H = f_m(X), a pure function of parameters, buffers, input and mode.
    ///
    /// # Errors
    /// [`EncoderError::WrongBatch`] when `input` is not of the shape the encoder was built for.
    fn forward(&self, input: &BatchInput, mode: &Mode) -> Result<Forward, EncoderError>;

    /// Takes in the running statistics of a batch whose turn was applied, [`in_memory`](Pending::in_memory).
    fn commit(&mut self, _pending: Pending) {}
}

/// Running statistics of one batch, to be committed in the order of the steps. Empty for encoders without buffers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pending(Vec<ChannelStatistics>);

impl Pending {
    /// With numbers that an encoder can take in: those that were still on a card are brought down.
    ///
    /// # Errors
    /// When the card fails.
    pub fn in_memory(self) -> Result<Self, EncoderError> {
        #[cfg(feature = "cuda")]
        let this = Self(crate::nn::cuda::batch_norm::in_memory(self.0)?);
        #[cfg(not(feature = "cuda"))]
        let this = self;
        Ok(this)
    }
}

/// What a forward pass gives.
#[derive(Debug)]
pub struct Forward {
    /// H (B, s).
    pub features: Tensor,
    /// See [`Encoder::commit`].
    pub pending: Pending,
    /// When training: the way back.
    trace: Option<Trace>,
}

/// What a backward pass needs of the forward pass.
#[derive(Debug)]
struct Trace {
    /// The features' on the tape; None if all that they depend on is frozen.
    place: Option<Place>,
    variables: Variables,
    frozen: Frozen,
}

impl Forward {
    fn new(features: &Value, pass: Pass<'_>) -> Result<Self, EncoderError> {
        let features = pass.leave(features)?;
        let frozen = pass.frozen().cloned();
        let (variables, statistics) = pass.finish();
        let trace = frozen.map(|frozen| Trace { place: features.place().cloned(), variables, frozen });
        Ok(Self { features: features.tensor().clone(), pending: Pending(statistics), trace })
    }

    /// H as the head reads it.
    ///
    /// # Errors
    /// When candle fails.
    pub fn matrix(&self) -> Result<Matrix<f32>, EncoderError> {
        let (rows, columns) = self.features.dims2()?;
        let values = self.features.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Matrix::from_vec(rows, columns, values).expect("a tensor has as many values as its shape"))
    }
}

/// Gradients of an encoder's parameters, in the order of [`Encoder::parameters`].
#[derive(Debug, Clone)]
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// Gradients that came about in another way, in the order of the parameters.
    #[cfg(test)]
    pub(crate) fn new(tensors: Vec<Tensor>) -> Self {
        Self(tensors.into_iter().map(Some).collect())
    }

    /// One for each parameter, of its shape; None of those that are frozen.
    pub fn tensors(&self) -> &[Option<Tensor>] {
        &self.0
    }
}

/// Builds the encoder of a modality, its parameters at their first values. Those do not depend on the precision.
///
/// `spec` may be `auto`, see [`resolve`]. The encoder ends in `width` features: where its own last layer has another width a
/// linear adapter follows.
///
/// # Errors
/// When the encoder does not fit the input, or the device does not compute in this precision.
pub fn build(
    precision: Precision,
    spec: &EncoderSpec,
    shape: &InputShape,
    width: usize,
    seed: u64,
    modality: &ModalityName,
    device: &Device,
) -> Result<Box<dyn Encoder>, EncoderError> {
    build_of(precision.into(), spec, shape, width, seed, modality, device)
}

/// As [`build`], of these numbers. Running statistics are in f32, whatever they are.
///
/// # Errors
/// As [`build`].
pub fn build_of(
    numbers: Numbers,
    spec: &EncoderSpec,
    shape: &InputShape,
    width: usize,
    seed: u64,
    modality: &ModalityName,
    device: &Device,
) -> Result<Box<dyn Encoder>, EncoderError> {
    check_numbers(numbers, device)?;
    let made = Parameters::new(seed, modality, numbers, device);
    Ok(match resolve(spec, shape) {
        EncoderSpec::Mlp { hidden, dropout } => Box::new(mlp::Mlp::new(made, &hidden, dropout, shape, width)?),
        EncoderSpec::Cnn { channels, dropout } => Box::new(cnn::Cnn::new(made, &channels, dropout, shape, width)?),
        EncoderSpec::Text { width: blocks, layers, heads, dropout } => {
            let plan = text::Plan { width: blocks, layers, heads, dropout };
            Box::new(text::Text::new(made, &plan, shape, width)?)
        }
        EncoderSpec::Resnet { depth } => Box::new(resnet::Resnet::new(made, resnet::Plan::of(depth), shape, width)?),
        EncoderSpec::Vit { size, patch, pooling, dropout } => {
            let plan = vit::Plan { size: size.dimensions(), patch: patch as usize, pooling, dropout };
            Box::new(vit::Vit::new(made, plan, shape, width)?)
        }
        EncoderSpec::Bert { size, pooling, dropout } => {
            let plan = bert::Plan { size: size.dimensions(), pooling, dropout };
            Box::new(bert::Bert::new(made, plan, shape, width)?)
        }
        EncoderSpec::Auto => unreachable!("resolved above"),
    })
}

/// Whether encoders compute in these numbers on this device.
///
/// # Errors
/// [`EncoderError::NoBf16`] when they do not.
pub fn check_numbers(numbers: Numbers, device: &Device) -> Result<(), EncoderError> {
    if numbers.activations != DType::BF16 {
        return Ok(());
    }
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        let multiplies = crate::nn::cuda::multiplies_bf16(device)?;
        return if multiplies { Ok(()) } else { Err(EncoderError::NoBf16 { device: "this card is older" }) };
    }
    debug_assert!(device.is_cpu(), "{device:?}");
    Err(EncoderError::NoBf16 { device: "this is main memory" })
}

/// What `auto` stands for with this input; anything else stays as it is.
#[must_use]
pub fn resolve(spec: &EncoderSpec, shape: &InputShape) -> EncoderSpec {
    match (spec, shape) {
        (EncoderSpec::Auto, InputShape::Features { .. }) => EncoderSpec::Mlp { hidden: vec![128], dropout: 0.0 },
        (EncoderSpec::Auto, InputShape::Grid { .. } | InputShape::Clip { .. }) => {
            EncoderSpec::Cnn { channels: vec![16, 32, 64], dropout: 0.0 }
        }
        (EncoderSpec::Auto, InputShape::Tokens { .. }) => {
            EncoderSpec::Text { width: 64, layers: 2, heads: 4, dropout: 0.0 }
        }
        (spec, _) => spec.clone(),
    }
}

/// The gradient of θ_m from the gradient dH (B, s) of the features: the way back of a pass, which can be gone once.
///
/// # Errors
/// When the shapes differ, the pass was not for training, or a parameter that is not frozen gets no gradient.
pub fn backward(
    encoder: &dyn Encoder,
    forward: &Forward,
    feature_gradient: &Matrix<f32>,
) -> Result<Gradients, EncoderError> {
    let shape = (feature_gradient.rows(), feature_gradient.cols());
    let upstream = Tensor::from_slice(feature_gradient.as_slice(), shape, &Device::Cpu)?;
    backward_tensor(encoder.parameters(), forward, &upstream)
}

/// As [`backward`], where dH is a tensor on any device.
pub(crate) fn backward_tensor(
    parameters: &[(String, Var)],
    forward: &Forward,
    upstream: &Tensor,
) -> Result<Gradients, EncoderError> {
    let ((rows, columns), (samples, width)) = (upstream.dims2()?, forward.features.dims2()?);
    if (rows, columns) != (samples, width) {
        return Err(EncoderError::WrongGradient { rows, columns, samples, width });
    }
    let missing = |name: &String| EncoderError::NoGradient { name: name.clone() };
    let Some(Trace { place, variables, frozen }) = &forward.trace else {
        return Err(parameters
            .first()
            .map_or(EncoderError::NoGradient { name: String::new() }, |(name, _)| missing(name)));
    };
    let features = &forward.features;
    let upstream = upstream.to_dtype(features.dtype())?.to_device(features.device())?.contiguous()?;
    let gradients = match place {
        Some(place) => backward_on_tape(place, upstream, &variables.numbers(parameters))?,
        None => vec![None; parameters.len()],
    };
    let checked = gradients.into_iter().zip(parameters).map(|(gradient, (name, variable))| match gradient {
        None if !frozen.contains(variable) => Err(missing(name)),
        gradient => Ok(gradient),
    });
    checked.collect::<Result<_, _>>().map(Gradients)
}

/// Parameters, then buffers: what a checkpoint keeps of an encoder. Copies, which later steps do not touch.
///
/// # Errors
/// When candle fails.
pub fn state(encoder: &dyn Encoder) -> Result<Vec<(String, Tensor)>, EncoderError> {
    let mut state = Vec::new();
    for (name, variable) in encoder.parameters() {
        state.push((name.clone(), variable.copy()?.detach()));
    }
    state.extend(encoder.buffers()?);
    Ok(state)
}

/// Sets an encoder to what [`state`] gave. All tensors are checked before the first is taken over; names that the encoder does
/// not have are left to others.
///
/// # Errors
/// [`EncoderError::WrongTensor`] when one is missing or has another shape or type.
pub fn restore(encoder: &mut dyn Encoder, tensors: &BTreeMap<String, Tensor>) -> Result<(), EncoderError> {
    for (name, own) in state(encoder)? {
        check_saved(&name, &own, tensors.get(&name))?;
    }
    for (name, variable) in encoder.parameters() {
        variable.set(&tensors[name].to_device(variable.device())?.contiguous()?)?;
    }
    encoder.load_buffers(tensors)
}

/// The saved tensor, if it may take the place of `own`.
pub(crate) fn check_saved<'a>(name: &str, own: &Tensor, saved: Option<&'a Tensor>) -> Result<&'a Tensor, EncoderError> {
    let wrong = |problem| EncoderError::WrongTensor { name: name.to_owned(), problem };
    let saved = saved.ok_or_else(|| wrong("it is missing".to_owned()))?;
    if saved.dims() != own.dims() || saved.dtype() != own.dtype() {
        let [saved, own] = [saved, own].map(|t| format!("{:?} {:?}", t.dtype(), t.dims()));
        return Err(wrong(format!("it is {saved}, not {own}")));
    }
    Ok(saved)
}

/// The dense batch as a tensor of these numbers on this device, if it is of the shape the encoder reads: (B, …), of clips (B·F, …).
fn read(input: &BatchInput, expected: &InputShape, numbers: DType, device: &Device) -> Result<Tensor, EncoderError> {
    let sample = match *expected {
        InputShape::Features { width } => vec![width],
        InputShape::Grid { channels, height, width } => vec![channels, height, width],
        InputShape::Clip { frames, channels, height, width } => vec![frames, channels, height, width],
        InputShape::Tokens { .. } => vec![],
    };
    match input {
        BatchInput::Dense { shape, data } if shape.len() > 1 && shape[1..] == sample => {
            let tensor = match numbers {
                #[cfg(feature = "cuda")]
                DType::F32 if device.is_cuda() => crate::nn::cuda::staging::upload(data, shape.as_slice(), device)?,
                _ => Tensor::from_slice(data, shape.as_slice(), &Device::Cpu)?.to_dtype(numbers)?.to_device(device)?,
            };
            Ok(if let InputShape::Clip { .. } = expected { tensor.flatten(0, 1)? } else { tensor })
        }
        BatchInput::Dense { shape, .. } => Err(wrong_batch(expected, format!("shape {shape:?}"))),
        BatchInput::Tokens { .. } => Err(wrong_batch(expected, "texts".to_owned())),
    }
}

/// The dense batch as layers read it, beside the parameters, if it is of the shape the encoder reads.
fn dense(
    input: &BatchInput,
    expected: &InputShape,
    pass: &Pass<'_>,
    parameters: &[(String, Var)],
) -> Result<Tensor, EncoderError> {
    read(input, expected, pass.activations(), parameters[0].1.device())
}

/// A batch of grids (B, C, H, W) with channels last, (B, H, W, C), as convolutions read them; of clips there are B·F.
fn grid(
    input: &BatchInput,
    expected: &InputShape,
    pass: &Pass<'_>,
    parameters: &[(String, Var)],
) -> Result<Value, EncoderError> {
    let (device, flowing) = (parameters[0].1.device(), pass.activations());
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        // It goes up as it is: the card turns and rounds it sooner.
        let x = read(input, expected, parameters[0].1.dtype(), device)?;
        return Ok(Value::constant(crate::nn::cuda::convolution::channels_last(&x, flowing)?));
    }
    debug_assert!(device.is_cpu(), "{device:?}");
    Ok(Value::constant(read(input, expected, flowing, device)?.permute((0, 2, 3, 1))?.contiguous()?))
}

/// The mean over the frames of each sample: `x` is (B·F, N), the result (B, N). What is not of a clip stays as it is.
fn frame_mean(x: Value, shape: &InputShape) -> candle_core::Result<Value> {
    let frames = shape.frames();
    if frames == 1 {
        return Ok(x);
    }
    let samples = x.tensor().dim(0)? / frames;
    segment_mean(&x, (0..samples).map(|sample| sample * frames..(sample + 1) * frames).collect())
}

fn wrong_batch(expected: &InputShape, got: String) -> EncoderError {
    EncoderError::WrongBatch { expected: expected.clone(), got }
}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod learning_tests;
#[cfg(test)]
mod tests;
