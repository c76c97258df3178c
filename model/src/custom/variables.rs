//! The parameters behind a network's `VarBuilder`: created here, seeded by name, and retained.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::Init;
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;

use crate::nn::parameters::Parameters;

/// Reserved prefixes of parameter names: a checkpoint uses them for other tensors.
const TAKEN: [&str; 2] = ["adapter.", "input."];

/// Creates each parameter at its first request, and returns the same one at later requests.
pub(super) struct Variables<'a>(Mutex<Parameters<'a>>);

/// The backend of a `VarBuilder`.
pub(super) struct Backend<'v, 'p>(pub(super) &'v Variables<'p>);

impl<'a> Variables<'a> {
    pub(super) fn new(made: Parameters<'a>) -> Self {
        Self(Mutex::new(made))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Parameters<'a>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All created parameters, by name.
    pub(super) fn into_made(self) -> Vec<(String, Var)> {
        let mut made = self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_made();
        made.sort_by(|(a, _), (b, _)| a.cmp(b));
        made
    }
}

impl SimpleBackend for Backend<'_, '_> {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut made = self.0.lock();
        if let Some(variable) = made.find(name) {
            return match variable.shape() == &shape {
                true => Ok(variable.as_tensor().clone()),
                false => bail!(
                    "parameter `{name}` is requested with shape {shape:?}, but it has shape {:?}",
                    variable.shape()
                ),
            };
        }
        if let Some(taken) = TAKEN.iter().find(|taken| name.starts_with(**taken)) {
            bail!("parameter `{name}` begins with `{taken}`, which is reserved; give it another name");
        }
        if name.ends_with("running_mean") || name.ends_with("running_var") {
            bail!(
                "`{name}` looks like a running statistic: candle's batch norm updates it invisibly, so no checkpoint \
                 would contain it; use `candle_nn::group_norm`, or `layer_norm` with `ops::layer_norm_slow`"
            );
        }
        if !made.makes(dtype, device) {
            bail!(
                "parameter `{name}` is requested in {dtype:?}; request it in the type and on the device of the \
                 `VarBuilder`"
            );
        }
        let name = name.to_owned();
        let variable = match init {
            Init::Const(value) => made.constant(name, shape, value),
            Init::Randn { mean, stdev } => made.normal_around(name, shape, mean, stdev),
            Init::Uniform { lo, up } => made.uniform_between(name, shape, lo, up),
            Init::Kaiming { dist, fan, non_linearity } => {
                let deviation = non_linearity.gain() / (fan.for_shape(&shape) as f64).sqrt();
                match dist {
                    NormalOrUniform::Normal => made.normal(name, shape, deviation),
                    NormalOrUniform::Uniform => made.uniform(name, shape, 3_f64.sqrt() * deviation),
                }
            }
        };
        Ok(variable?.as_tensor().clone())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        bail!("parameter `{name}` is requested without its shape; use `get` or `get_with_hints`")
    }

    /// Every requested parameter is created.
    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
