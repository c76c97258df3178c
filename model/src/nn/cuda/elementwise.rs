//! Elementwise operators.

use candle_core::{DType, Result, Tensor};

use super::launch::{Argument, Card, arguments};
use crate::nn::value::Value;

/// The result of a kernel that reads `own` and writes as many numbers as `like` has.
fn mapped(kernel: &'static str, like: &Tensor, own: &[Argument<'_>]) -> Result<Tensor> {
    let (card, n) = (Card::of(like)?, like.elem_count());
    let out = card.empty(like.shape())?;
    card.numbers(kernel, n, &[own, &arguments![&out, n]].concat())?;
    Ok(out)
}

/// See [`crate::nn::cast::narrow`].
pub(crate) fn narrow(input: &Value) -> Result<Value> {
    let card = Card { dtype: DType::BF16, ..Card::of(input.tensor())? };
    let y = card.narrowed(input.tensor())?;
    Ok(Value::of(y, [input], move |g| Ok([Some(card.widened(g)?)])))
}

/// See [`crate::nn::cast::widen`].
pub(crate) fn widen(input: &Value) -> Result<Value> {
    let card = Card::of(input.tensor())?;
    let y = card.widened(input.tensor())?;
    Ok(Value::of(y, [input], move |g| Ok([Some(card.narrowed(g)?)])))
}

/// The sum of two tensors of one shape.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() {
        candle_core::bail!("a sum of {:?} and {:?}", a.dims(), b.dims());
    }
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    mapped("add", &a, &arguments![&a, &b])
}

/// See [`crate::nn::gelu::gelu`].
pub(crate) fn gelu(input: &Value) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let y = mapped("gelu", &x, &arguments![&x])?;
    Ok(Value::of(y, [input], move |g| Ok([Some(mapped("gelu_gradient", &x, &arguments![&x, g])?)])))
}

/// Zero where a number is not `kept`, scaled where it is. The mask was drawn in main memory, so it is the same on every
/// device.
pub(crate) fn dropout(input: &Value, kept: &[bool], scale: f64) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let bits = kept.chunks(8).map(|eight| eight.iter().rev().fold(0, |byte, kept| byte << 1 | u8::from(*kept)));
    let kept = Card::of(&x)?.upload(bits.collect::<Vec<u8>>())?;
    let y = mapped("masked", &x, &arguments![&x, &kept, scale])?;
    Ok(Value::of(y, [input], move |g| Ok([Some(mapped("masked", g, &arguments![g, &kept, scale])?)])))
}

/// The gradient through ReLU: zero where `output` is zero.
pub(super) fn through(output: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    mapped("relu_gradient", gradient, &arguments![output, gradient])
}
