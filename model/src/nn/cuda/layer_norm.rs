//! Layer normalisation.

use candle_core::{Result, Tensor};

use super::columns::{partial, row_sums};
use super::launch::{Card, arguments};
use crate::nn::value::Value;

/// See [`crate::nn::layer_norm::layer_norm`].
pub(crate) fn layer_norm(input: &Value, scale: &Value, shift: &Value, epsilon: f64) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (scale_tensor, shift_tensor) = (scale.tensor().contiguous()?, shift.tensor().contiguous()?);
    let (rows, width) = x.dims2()?;
    let card = Card::of(&x)?;
    // Mean and 1 / √(variance + ε) of each row, for the backward pass.
    let (y, kept) = (card.empty((rows, width))?, card.empty_of(card.computed(), (rows, 2))?);
    card.rows("layer_norm", rows, &arguments![&x, &scale_tensor, &shift_tensor, epsilon, width, rows, &y, &kept])?;
    let [input_wanted, scale_wanted, shift_wanted] = [input, scale, shift].map(Value::wanted);
    // The gradient of the shift is a sum of the result's gradient and does not need the input.
    let rows_before = (input_wanted || scale_wanted).then_some((x, kept));
    let scale_before = input_wanted.then_some(scale_tensor);
    Ok(Value::of(y, [input, scale, shift], move |g| {
        let Some((x, kept)) = &rows_before else {
            let for_shift = shift_wanted.then(|| row_sums(&card, g, (rows, width)));
            return Ok([None, None, for_shift.transpose()?]);
        };
        let for_input = scale_before.map(|scale| -> Result<Tensor> {
            let out = card.empty((rows, width))?;
            card.rows("layer_norm_gradient", rows, &arguments![x, &scale, g, kept, width, rows, &out])?;
            Ok(out)
        });
        let for_input = for_input.transpose()?;
        if !scale_wanted && !shift_wanted {
            return Ok([for_input, None, None]);
        }
        let sums = partial(&card, "layer_norm_sums", &arguments![x, g, kept], (rows, width))?;
        let [for_shift, for_scale] = sums.totals(&card)?;
        Ok([for_input, scale_wanted.then_some(for_scale), shift_wanted.then_some(for_shift)])
    }))
}
