//! Pooling over grids.

use candle_core::{DType, Result};

use super::launch::{Card, arguments};
use crate::nn::pooling::Window;
use crate::nn::value::Value;

/// See [`crate::nn::pooling::max_pool`].
pub(crate) fn max_pool(input: &Value, window: Window) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (samples, height, width, channels) = x.dims4()?;
    let Window { size, stride, padding } = window;
    let positions = |length: usize| (length + 2 * padding - size) / stride + 1;
    let (down, across) = (positions(height), positions(width));
    let (card, shape) = (Card::of(&x)?, (samples, down, across, channels));
    let (y, chosen) = (card.empty(shape)?, card.empty_of(DType::U8, shape)?);
    let n = y.elem_count();
    let own = arguments![&x, height, width, channels, size, stride, padding, down, across, &y, &chosen, n];
    card.each("max_pool", n, &own)?;
    Ok(Value::of(y, [input], move |g| {
        let out = card.empty((samples, height, width, channels))?;
        let n = out.elem_count();
        let own = arguments![g, &chosen, height, width, channels, size, stride, padding, down, across, &out, n];
        card.each("max_pool_gradient", n, &own)?;
        Ok([Some(out)])
    }))
}

/// See [`crate::nn::pooling::grid_mean`].
pub(crate) fn grid_mean(input: &Value, (rows, columns): (usize, usize)) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (samples, height, width, channels) = x.dims4()?;
    let card = Card::of(&x)?;
    let y = card.empty((samples, rows, columns, channels))?;
    let n = y.elem_count();
    card.each("grid_mean", n, &arguments![&x, height, width, channels, rows, columns, &y, n])?;
    let n = x.elem_count();
    Ok(Value::of(y, [input], move |g| {
        let out = card.empty((samples, height, width, channels))?;
        card.each("grid_mean_gradient", n, &arguments![g, height, width, channels, rows, columns, &out, n])?;
        Ok([Some(out)])
    }))
}
