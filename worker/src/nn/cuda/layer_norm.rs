//! Layer normalisation.

use candle_core::Result;

use super::columns::partial;
use super::launch::{Card, arguments};
use crate::nn::value::Value;

/// See [`crate::nn::layer_norm::layer_norm`].
pub(crate) fn layer_norm(input: &Value, scale: &Value, shift: &Value, epsilon: f64) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (scale_tensor, shift_tensor) = (scale.tensor().contiguous()?, shift.tensor().contiguous()?);
    let (rows, width) = x.dims2()?;
    let card = Card::of(&x)?;
    // Mean and 1 / √(variance + ε) of each row, for the way back.
    let (y, kept) = (card.empty((rows, width))?, card.empty((rows, 2))?);
    card.blocks("layer_norm", rows, &arguments![&x, &scale_tensor, &shift_tensor, epsilon, width, &y, &kept])?;
    Ok(Value::of(y, [input, scale, shift], move |g| {
        let for_input = card.empty((rows, width))?;
        card.blocks("layer_norm_gradient", rows, &arguments![&x, &scale_tensor, g, &kept, width, &for_input])?;
        let sums = partial(&card, "layer_norm_sums", &arguments![&x, g, &kept], (rows, width))?;
        let [for_shift, for_scale] = sums.narrow(&card)?;
        Ok([Some(for_input), Some(for_scale), Some(for_shift)])
    }))
}
