//! Between f32, which parameters are in, and bf16, which may flow between operators on a card.

use candle_core::Result;

use super::dispatch::on_cuda;
use super::value::Value;

const NAME: &str = "cast";

/// f32 rounded to the nearest in bf16; the gradient goes back in f32.
///
/// # Errors
/// When the input is not in f32 on a card.
pub(crate) fn narrow(input: &Value) -> Result<Value> {
    on_cuda!(input.tensor(), elementwise::narrow(input));
    candle_core::bail!("{NAME}: there is no bf16 in main memory")
}

/// The same numbers in f32; the gradient goes back rounded to bf16.
///
/// # Errors
/// When the input is not in bf16 on a card.
pub(crate) fn widen(input: &Value) -> Result<Value> {
    on_cuda!(input.tensor(), elementwise::widen(input));
    candle_core::bail!("{NAME}: there is no bf16 in main memory")
}
