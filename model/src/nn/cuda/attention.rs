//! Self-attention within each sequence. Sequences of the same length are multiplied together, head by head.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::elementwise;
use super::launch::{Card, arguments};
use super::product::{Matrix, Size, multiply_each};
use crate::nn::value::Value;

/// The largest number of scores in memory at a time, unless a single sequence has more.
const SCORES: usize = 1 << 26;

/// The alignment of matrices and their rows in bf16, in numbers.
const ALIGNED: usize = 8;

/// See [`crate::nn::attention::attention`].
pub(crate) fn attention(input: &Value, heads: usize, starts: &Arc<[usize]>) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let width = x.dim(1)? / 3;
    if x.dtype() == DType::BF16 && !(width / heads).is_multiple_of(ALIGNED) {
        // Queries, keys and values are not aligned for products of many matrices.
        return elementwise::narrow(&attention(&elementwise::widen(input)?, heads, starts)?);
    }
    let operator = Attention { card: Card::of(&x)?, heads, width, blocks: blocks(starts, heads) };
    let y = operator.forward(&x)?;
    Ok(Value::of(y, [input], move |g| Ok([Some(operator.gradient(&x, g)?)])))
}

/// Sequences of the same length that are computed together, by their first rows.
struct Block {
    length: usize,
    starts: Vec<usize>,
}

fn blocks(starts: &[usize], heads: usize) -> Vec<Block> {
    let mut by_length = BTreeMap::<usize, Vec<usize>>::new();
    for pair in starts.windows(2).filter(|pair| pair[1] > pair[0]) {
        by_length.entry(pair[1] - pair[0]).or_default().push(pair[0]);
    }
    let blocks_of = |(length, starts): (usize, Vec<usize>)| {
        let at_once = (SCORES / (heads * length * length)).max(1);
        starts.chunks(at_once).map(|starts| Block { length, starts: starts.to_vec() }).collect::<Vec<_>>()
    };
    by_length.into_iter().flat_map(blocks_of).collect()
}

struct Attention {
    card: Card,
    heads: usize,
    width: usize,
    blocks: Vec<Block>,
}

/// The sequences and heads of a block, with consecutive matrices.
struct Heads<'a> {
    of: &'a Attention,
    length: usize,
    sequences: usize,
    /// The first row of each sequence, on the GPU.
    starts: Tensor,
}

impl Attention {
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    fn heads<'a>(&'a self, block: &Block) -> Result<Heads<'a>> {
        let starts = self.card.upload(block.starts.iter().map(|start| *start as u32).collect())?;
        Ok(Heads { of: self, length: block.length, sequences: block.starts.len(), starts })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let out = self.card.empty((x.dim(0)?, self.width))?;
        for block in &self.blocks {
            let at = self.heads(block)?;
            let [queries, keys, values] = at.three(&at.apart(x, 3)?)?;
            let (scores, mixed) = (at.scores()?, at.empty(1)?);
            at.scores_of(&queries, &keys, &scores[0])?;
            at.softmax(&scores, false)?;
            at.mix(at.matrix(&scores[1])?, &values, &mixed)?;
            at.together(&mixed, &out, 1)?;
        }
        Ok(out)
    }

    /// With S the scores and P = softmax(S): `dV = Pᵀ dO`, `dP = dO Vᵀ`, `dS = P · (dP − Σ P · dP) · scale`,
    /// `dQ = dS K`, `dK = dSᵀ Q`.
    fn gradient(&self, x: &Tensor, g: &Tensor) -> Result<Tensor> {
        let out = self.card.empty(x.shape())?;
        for block in &self.blocks {
            let at = self.heads(block)?;
            let ([queries, keys, values], from_out) = (at.three(&at.apart(x, 3)?)?, at.apart(g, 1)?);
            let (probabilities, scores, gradients) = (at.scores()?, at.scores()?, at.empty(3)?);
            let [for_queries, for_keys, for_values] = at.three(&gradients)?;
            at.scores_of(&queries, &keys, &probabilities[0])?;
            at.softmax(&probabilities, true)?;
            at.mix(at.matrix(&probabilities[1])?.transposed(), &from_out, &for_values)?;
            at.scores_of(&from_out, &values, &scores[0])?;
            at.softmax_gradient(&scores, &probabilities)?;
            at.mix(at.matrix(&scores[1])?, &keys, &for_queries)?;
            at.mix(at.matrix(&scores[1])?.transposed(), &queries, &for_keys)?;
            at.together(&gradients, &out, 3)?;
        }
        Ok(out)
    }
}

impl Heads<'_> {
    /// The number of sequences times heads.
    fn count(&self) -> usize {
        self.sequences * self.of.heads
    }

    /// The distance between the starts of two rows of scores.
    fn stride(&self) -> usize {
        if self.of.card.dtype == DType::BF16 { self.length.next_multiple_of(ALIGNED) } else { self.length }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.of.depth() as f64).sqrt()
    }

    /// Memory for this many kinds of matrices per sequence and head, (kinds, sequences · heads, length, depth).
    fn empty(&self, kinds: usize) -> Result<Tensor> {
        self.of.card.empty((kinds, self.count(), self.length, self.of.depth()))
    }

    fn three(&self, kinds: &Tensor) -> Result<[Tensor; 3]> {
        Ok([kinds.get(0)?, kinds.get(1)?, kinds.get(2)?])
    }

    fn between(&self, kernel: &'static str, rows: &Tensor, matrices: &Tensor, kinds: usize) -> Result<()> {
        let (card, depth) = (&self.of.card, self.of.depth());
        let own = arguments![rows, &self.starts, self.sequences, self.of.heads, self.length, depth, kinds, matrices];
        let n = matrices.elem_count();
        card.packs(kernel, depth, n, &[&own[..], &arguments![n]].concat())
    }

    /// Separates this many kinds of matrices, which are beside each other in rows.
    fn apart(&self, rows: &Tensor, kinds: usize) -> Result<Tensor> {
        let out = self.empty(kinds)?;
        self.between("heads_apart", rows, &out, kinds)?;
        Ok(out)
    }

    /// The inverse of [`Self::apart`].
    fn together(&self, matrices: &Tensor, rows: &Tensor, kinds: usize) -> Result<()> {
        self.between("heads_together", rows, matrices, kinds)
    }

    /// Memory for scores in the type of computations, and for scores as factors, which is the same memory unless their
    /// type is narrower.
    fn scores(&self) -> Result<[Tensor; 2]> {
        let (card, shape) = (&self.of.card, (self.count(), self.length, self.stride()));
        let computed = card.empty_of(card.computed(), shape)?;
        let stored = if card.dtype == computed.dtype() { computed.clone() } else { card.empty(shape)? };
        Ok([computed, stored])
    }

    /// Replaces scores by probabilities if they are `kept`, and writes them as factors.
    fn softmax(&self, [scores, stored]: &[Tensor; 2], kept: bool) -> Result<()> {
        let stored = Some(stored).filter(|stored| stored.dtype() != scores.dtype());
        let (kept, rows) = (kept || stored.is_none(), self.count() * self.length);
        let own = arguments![scores, self.scale(), self.length, self.stride(), rows, kept, stored];
        self.of.card.rows("softmax", rows, &own)
    }

    /// The gradient of scores, written to the second of `scores`, from the gradient of probabilities in the first.
    fn softmax_gradient(&self, scores: &[Tensor; 2], probabilities: &[Tensor; 2]) -> Result<()> {
        let rows = self.count() * self.length;
        let own = arguments![&scores[0], &probabilities[0], self.scale(), self.length, self.stride(), rows, &scores[1]];
        self.of.card.rows("softmax_gradient", rows, &own)
    }

    fn matrix(&self, tensor: &Tensor) -> Result<Matrix> {
        Matrix::of(&self.of.card, tensor, tensor.dims().last().copied().unwrap_or(1))
    }

    fn multiply(&self, size: Size, [left, right, into]: [Matrix; 3]) -> Result<()> {
        multiply_each(&self.of.card, (self.count(), self.length), size, left, right, into)
    }

    /// `scores = left · rightᵀ`, of queries, keys or values.
    fn scores_of(&self, left: &Tensor, right: &Tensor, scores: &Tensor) -> Result<()> {
        let size = (self.length, self.length, self.of.depth());
        self.multiply(size, [self.matrix(left)?, self.matrix(right)?.transposed(), self.matrix(scores)?])
    }

    /// `into = scores · rows`, of queries, keys or values.
    fn mix(&self, scores: Matrix, rows: &Tensor, into: &Tensor) -> Result<()> {
        let size = (self.length, self.of.depth(), self.length);
        self.multiply(size, [scores, self.matrix(rows)?, self.matrix(into)?])
    }
}
