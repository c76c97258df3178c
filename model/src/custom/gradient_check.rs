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
pub(super) const SAMPLES: usize = 2;

/// The largest difference of the two sides, relative to |g|. It allows for the kinks of ReLU and is far below the
/// effect of a mistake.
const TOLERANCE: f64 = 0.1;

/// The first change of L that is tried, relative to Σ|r ∘ H|.
const CHANGE: f64 = 3e-2;

/// Smaller changes, relative to the first one. They are tried if a larger one crosses kinks or curves.
const SHRINKING: [f64; 5] = [1.0, 0.3, 0.1, 0.03, 0.01];

/// The rounding error of L in f32, relative to Σ|r ∘ H|. A change must be well above it.
const ROUNDING: f64 = 1e-6;

/// The largest change of a parameter, relative to its norm.
const REACH: f64 = 0.1;

/// The scale of a parameter whose elements are all zero, such as a bias at the start.
const SCALE_OF_ZEROS: f64 = 0.1;

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
/// The check runs beside the parameters, not at them: at the start many biases are exactly zero, so that inputs of zeros
/// lie on the kinks of ReLU, where a derivative does not exist.
///
/// # Errors
/// If candle fails.
pub(super) fn mismatch(
    parameters: &[(String, Var)],
    frozen: &Frozen,
    forward: impl Fn() -> Result<Tensor>,
) -> Result<Option<Mismatch>> {
    let trained: Vec<&(String, Var)> = parameters.iter().filter(|(_, variable)| !frozen.contains(variable)).collect();
    let before = trained.iter().map(|(_, variable)| variable.as_tensor().copy()).collect::<Result<Vec<_>>>()?;
    let found = mismatch_beside(&trained, forward);
    for ((_, variable), before) in trained.iter().zip(&before) {
        variable.set(before)?;
    }
    found
}

fn mismatch_beside(trained: &[&(String, Var)], forward: impl Fn() -> Result<Tensor>) -> Result<Option<Mismatch>> {
    for (name, variable) in trained {
        variable.set(&(variable.as_tensor() + noise(name, variable)?)?)?;
    }
    let features = forward()?;
    let signs = signs(&features)?;
    let store = (&features * &signs)?.sum_all()?.backward()?;
    let terms = || -> Result<Vec<f64>> {
        (forward()? * &signs)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
    };
    let scale = terms()?.iter().map(|term| term.abs()).sum();
    for (name, variable) in trained {
        // The backward pass itself reports a missing gradient.
        let Some(gradient) = store.get(variable.as_tensor()) else { continue };
        let here = variable.as_tensor().copy()?;
        let ratio = ratio(variable, &here, gradient, scale, || Ok(terms()?.iter().sum()))?;
        variable.set(&here)?;
        if let Some(ratio) = ratio {
            return Ok(Some(Mismatch { parameter: name.clone(), ratio }));
        }
    }
    Ok(None)
}

/// The measured slope along a gradient over the one that it says, if they differ at every change that can be measured.
fn ratio(
    variable: &Var,
    here: &Tensor,
    gradient: &Tensor,
    scale: f64,
    loss: impl Fn() -> Result<f64>,
) -> Result<Option<f64>> {
    let length = norm(gradient)?;
    let first = (CHANGE * scale).min(REACH * norm(here)? * length);
    let mut off = None;
    for change in SHRINKING.map(|factor| factor * first) {
        if change.is_nan() || change <= 100.0 * ROUNDING * scale {
            break;
        }
        let step = ((gradient / length)? * (change / length))?;
        variable.set(&(here + &step)?)?;
        let above = loss()?;
        variable.set(&(here - &step)?)?;
        let ratio = (above - loss()?) / (2.0 * change);
        if !ratio.is_finite() || (ratio - 1.0).abs() <= TOLERANCE {
            return Ok(None);
        }
        off = Some(ratio);
    }
    Ok(off)
}

/// Noise of a tenth of a parameter's scale, always the same, with no element near zero.
fn noise(name: &str, variable: &Var) -> Result<Tensor> {
    let elements = variable.elem_count();
    let own = norm(variable)? / (elements as f64).sqrt();
    let amplitude = 0.1 * if own > 0.0 { own } else { SCALE_OF_ZEROS };
    let mut stream = rng::stream(0, &["gradient check".into(), name.into()]);
    let value = |_| {
        let uniform = 2.0 * rng::uniform(&mut stream) - 1.0;
        (amplitude * uniform.signum() * (0.5 + 0.5 * uniform.abs())) as f32
    };
    let values: Vec<f32> = (0..elements).map(value).collect();
    Tensor::from_vec(values, variable.shape(), &Device::Cpu)?.to_device(variable.device())
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
