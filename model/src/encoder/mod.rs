//! Encoders: f_m, from a batch of one modality to features (B, s).
//!
//! ```text
//! mlp         features → (linear, ReLU, dropout)… ─────────────────────────────┐
//! cnn         grid → (convolution, batch norm, ReLU, pooling)… → cells → norm ─┤
//! resnet18…   grid → stem → residual blocks → mean over the positions ────────────┼→ adapter → features (B, s)
//! vit         grid → patches → transformer blocks → class token or mean ───────┤
//! text, bert  tokens → embedding → transformer blocks → pooling ───────────────┘
//! ```
//!
//! Up to the adapter, each frame of a clip is a separate sample, so a batch norm sees B·F images. The adapter's input
//! is the average over the frames (`frame_mean`).
//!
//! Invariants:
//! 1. A forward pass changes nothing: the state that it would change (running statistics) is returned as [`Pending`],
//!    and [`Encoder::commit`] applies it after the turn was applied.
//! 2. Initial parameters are a function of seed, modality and parameter name. Dropout is a function of the
//!    [`DropoutKey`].
//! 3. Every trained parameter gets a gradient, or [`backward`] names the one that did not. No gradient is computed for
//!    a [`Frozen`] parameter.
//! 4. In evaluation, a sample's features do not depend on its batch, to the last bit.
//!
//! Nothing here knows of the head, turns or optimizers.

mod adapter;
mod bert;
mod cnn;
mod contract;
mod error;
mod input;
mod mlp;
mod resnet;
mod text;
mod vit;

use antiphon_core::ids::ModalityName;
use antiphon_core::spec::{EncoderSpec, Precision};
use antiphon_data::InputShape;
use candle_core::{DType, Device};

pub(crate) use self::adapter::adapter_gain;
pub(crate) use self::contract::check_saved;
pub use self::contract::{Encoder, Forward, Gradients, Pending, backward, backward_tensor, restore, state};
pub use self::error::EncoderError;
pub(crate) use self::input::tensor_of;
pub use crate::nn::layer::{DropoutKey, Frozen, Mode};
pub use crate::nn::parameters::Numbers;
use crate::nn::parameters::Parameters;

/// Builds the encoder of a modality with initial parameters, which do not depend on the precision.
///
/// `spec` may be `auto`, see [`resolve`]. The encoder ends in `width` features: if its own last layer has another
/// width, a linear adapter follows.
///
/// # Errors
/// If the encoder does not fit the input, or the device does not compute in this precision.
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

/// As [`build`], with these number types. Running statistics are always in f32.
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
        EncoderSpec::Custom { name, .. } => return Err(EncoderError::NotRegistered { name, registered: Vec::new() }),
        EncoderSpec::Auto => unreachable!("resolved above"),
    })
}

/// Checks whether this device computes in these number types.
///
/// # Errors
/// [`EncoderError::NoBf16`] if it does not.
pub fn check_numbers(numbers: Numbers, device: &Device) -> Result<(), EncoderError> {
    if numbers.activations != DType::BF16 {
        return Ok(());
    }
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        let multiplies = crate::nn::cuda::multiplies_bf16(device)?;
        return if multiplies { Ok(()) } else { Err(EncoderError::NoBf16 { device: "this GPU is older" }) };
    }
    debug_assert!(device.is_cpu(), "{device:?}");
    Err(EncoderError::NoBf16 { device: "this device is the CPU" })
}

/// The encoder that `auto` means for this input. Other encoders are returned unchanged.
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

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod learning_tests;
#[cfg(test)]
mod tests;
