//! Conversion between f32, the type of parameters, and bf16, which activations on a GPU may have.

use candle_core::Result;

use super::dispatch::on_cuda;
use super::value::Value;

const NAME: &str = "cast";

/// Rounds f32 to the nearest bf16. The gradient is in f32.
///
/// # Errors
/// If the input is not in f32 on a GPU.
pub(crate) fn narrow(input: &Value) -> Result<Value> {
    on_cuda!(input.tensor(), elementwise::narrow(input));
    candle_core::bail!("{NAME}: there is no bf16 in main memory")
}

/// The same numbers in f32. The gradient is rounded to bf16.
///
/// # Errors
/// If the input is not in bf16 on a GPU.
pub(crate) fn widen(input: &Value) -> Result<Value> {
    on_cuda!(input.tensor(), elementwise::widen(input));
    candle_core::bail!("{NAME}: there is no bf16 in main memory")
}
