//! Where a network's `VarBuilder` gets its parameters: made, seeded by name, and kept here.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::Init;
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;

use crate::nn::parameters::Parameters;

/// What names of a network's parameters must not begin with: a checkpoint has other tensors there.
const TAKEN: [&str; 2] = ["adapter.", "input."];

/// Makes each parameter when it is first asked for, and gives the same one when it is asked for again.
pub(super) struct Variables<'a>(Mutex<Parameters<'a>>);

/// What a `VarBuilder` holds of them.
pub(super) struct Backend<'v, 'p>(pub(super) &'v Variables<'p>);

impl<'a> Variables<'a> {
    pub(super) fn new(made: Parameters<'a>) -> Self {
        Self(Mutex::new(made))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Parameters<'a>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that were made, by name.
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
                false => bail!("parameter `{name}` is asked for as {shape:?}, but it is {:?}", variable.shape()),
            };
        }
        if let Some(taken) = TAKEN.iter().find(|taken| name.starts_with(**taken)) {
            bail!("parameter `{name}` begins with `{taken}`, which is taken; give it another name");
        }
        if name.ends_with("running_mean") || name.ends_with("running_var") {
            bail!(
                "`{name}` looks like a running statistic: candle's batch norm updates those out of sight, and no checkpoint \
                 would hold them; use `candle_nn::group_norm`, or `layer_norm` with `ops::layer_norm_slow`"
            );
        }
        if !made.makes(dtype, device) {
            bail!(
                "parameter `{name}` is asked for in {dtype:?}; parameters are made in the type and on the device of the `VarBuilder`"
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
        bail!("parameter `{name}` is asked for without its shape; use `get` or `get_with_hints`")
    }

    /// Whatever is asked for is made.
    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
