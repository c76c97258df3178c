//! Whether the gradients that candle computes are derivatives, by central differences.
//!
//! For a loss L = Σ r ∘ H with fixed signs r, and for each parameter θ with the gradient g that candle computes:
//!
//! ```text
//! (L(θ + h g/|g|) − L(θ − h g/|g|)) / 2h ≈ |g|
//! ```
//!
//! A gradient fails this check if it belongs to another parameter, has its elements in the wrong order, or misses one
//! of the uses of a parameter. One that is zero, or too small for f32 to show its effect, is not checked.

use antiphon_core::rng;
use candle_core::{DType, Device, Result, Tensor, Var};

use crate::nn::layer::Frozen;

/// The number of samples of the first batch that are used. It is small because every parameter takes at least two
/// forward passes.
pub(super) const SAMPLES: usize = 4;

/// The largest difference of the two sides, relative to |g|. It allows for the kinks of ReLU and is far below the
/// effect of a mistake.
const TOLERANCE: f64 = 0.1;

/// Changes of L that are tried, relative to Σ|r ∘ H|: the smaller ones if a larger one crosses kinks or curves.
const CHANGES: [f64; 4] = [3e-2, 1e-2, 3e-3, 1e-3];

/// The rounding error of L in f32, relative to Σ|r ∘ H|. A change must be well above it.
const ROUNDING: f64 = 1e-6;

/// The largest change of a parameter, relative to its norm.
const REACH: f64 = 0.1;

/// A gradient that is not the derivative.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mismatch {
    /// The parameter.
    pub(super) parameter: String,
    /// The measured slope along the gradient, divided by the slope that the gradient predicts. 1 is correct.
    pub(super) ratio: f64,
}

/// Searches for a gradient that is not the derivative of `forward`, which must be a pure function of the parameters and
/// returns features (B, s). Parameters are changed temporarily and restored to the last bit.
///
/// # Errors
/// If candle fails.
pub(super) fn mismatch(
    parameters: &[(String, Var)],
    frozen: &Frozen,
    forward: impl Fn() -> Result<Tensor>,
) -> Result<Option<Mismatch>> {
    let features = forward()?;
    let signs = signs(&features)?;
    let store = (&features * &signs)?.sum_all()?.backward()?;
    let loss = || -> Result<(f64, f64)> {
        let terms =
            (forward()? * &signs)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        Ok((terms.iter().sum(), terms.iter().map(|term| term.abs()).sum()))
    };
    let (_, scale) = loss()?;
    for (name, variable) in parameters.iter().filter(|(_, variable)| !frozen.contains(variable)) {
        // The backward pass itself reports a missing gradient.
        let Some(gradient) = store.get(variable.as_tensor()) else { continue };
        let before = variable.as_tensor().copy()?;
        let ratio = ratio(variable, &before, gradient, scale, || Ok(loss()?.0));
        variable.set(&before)?;
        if let Some(ratio) = ratio? {
            return Ok(Some(Mismatch { parameter: name.clone(), ratio }));
        }
    }
    Ok(None)
}

/// The measured slope along a gradient over the one that it says, if they differ at every change that can be measured.
fn ratio(
    variable: &Var,
    before: &Tensor,
    gradient: &Tensor,
    scale: f64,
    loss: impl Fn() -> Result<f64>,
) -> Result<Option<f64>> {
    let (length, size) = (norm(gradient)?, norm(before)?);
    // A parameter that starts at zero, such as a bias, has no scale.
    let reach = REACH * size.max(0.1 * (before.elem_count() as f64).sqrt());
    let mut off = None;
    for change in CHANGES.map(|change| (change * scale).min(reach * length)) {
        if change.is_nan() || change <= 100.0 * ROUNDING * scale {
            break;
        }
        let step = ((gradient / length)? * (change / length))?;
        variable.set(&(before + &step)?)?;
        let above = loss()?;
        variable.set(&(before - &step)?)?;
        let ratio = (above - loss()?) / (2.0 * change);
        if !ratio.is_finite() || (ratio - 1.0).abs() <= TOLERANCE {
            return Ok(None);
        }
        off = Some(ratio);
    }
    Ok(off)
}

/// |t|.
fn norm(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
}

/// r: a fixed 1 or −1 for each feature.
fn signs(features: &Tensor) -> Result<Tensor> {
    let mut stream = rng::stream(0, &["gradient check".into()]);
    let signs = (0..features.elem_count()).map(|_| if rng::uniform(&mut stream) < 0.5 { -1_f32 } else { 1.0 });
    Tensor::from_vec(signs.collect(), features.shape(), &Device::Cpu)?.to_device(features.device())
}
