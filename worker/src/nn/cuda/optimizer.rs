//! Steps of optimizers in one pass, and the norm of a gradient.

use candle_core::{DType, Result, Tensor};

use super::launch::{Card, arguments};
use crate::nn::update::Adam;

/// Most blocks that share the squares of a tensor. Bits depend on it.
const BLOCKS: usize = 256;
const PER_BLOCK: usize = 4096;

/// The sum of squares of each tensor, in double precision, brought down in one piece.
pub(crate) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let card = Card::of(first)?;
    let (out, partial) = (card.empty_of(DType::F64, tensors.len())?, card.empty_of(DType::F64, BLOCKS)?);
    for (at, tensor) in tensors.iter().enumerate() {
        let (tensor, n) = (tensor.contiguous()?, tensor.elem_count());
        let blocks = n.div_ceil(PER_BLOCK).clamp(1, BLOCKS);
        card.blocks("squares", blocks, &arguments![&tensor, &partial, n])?;
        card.blocks("squares_total", 1, &arguments![&partial, blocks, &out, at])?;
    }
    out.to_vec1()
}

/// `v ← μ v + (share · g + λ p); p ← p − lr v`
pub(crate) fn sgd([p, v, g]: [&Tensor; 3], (share, momentum, decay, lr): (f64, f64, f64, f64)) -> Result<()> {
    let n = p.elem_count();
    Card::of(p)?.each("sgd", n, &arguments![p, v, g, share, momentum, decay, lr, n])
}

/// `to ← from`
pub(crate) fn copy(from: &Tensor, to: &Tensor) -> Result<()> {
    let n = to.elem_count();
    Card::of(to)?.each("copy", n, &arguments![from, to, n])
}

/// `m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; p ← decay · p − rate · m / (√v / correction + ε)`, of `share · g`.
pub(crate) fn adamw([p, m, v, g]: [&Tensor; 4], adam: Adam) -> Result<()> {
    let Adam { share, betas: [beta1, beta2], decay, rate, correction, epsilon } = adam;
    let (new1, new2) = (1.0 - beta1, 1.0 - beta2);
    let n = p.elem_count();
    let own = arguments![p, m, v, g, share, beta1, new1, beta2, new2, decay, rate, correction, epsilon, n];
    Card::of(p)?.each("adamw", n, &own)
}
