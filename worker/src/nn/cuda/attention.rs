//! Self-attention within each text: texts of one length are multiplied together, head by head.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::elementwise;
use super::launch::{Card, arguments};
use super::product::{Matrix, Size, multiply_each};
use crate::nn::value::Value;

/// Scores that are held at a time, unless those of a single text are more.
const SCORES: usize = 1 << 26;

/// Numbers in bf16 from one place where a matrix or a row of it may begin to the next.
const ALIGNED: usize = 8;

/// See [`crate::nn::attention::attention`].
pub(crate) fn attention(input: &Value, heads: usize, starts: &Arc<[usize]>) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let width = x.dim(1)? / 3;
    if x.dtype() == DType::BF16 && !(width / heads).is_multiple_of(ALIGNED) {
        // No queries, keys and values begin where products of many matrices want them.
        return elementwise::narrow(&attention(&elementwise::widen(input)?, heads, starts)?);
    }
    let operator = Attention { card: Card::of(&x)?, heads, width, pieces: pieces(starts, heads) };
    let y = operator.forward(&x)?;
    Ok(Value::of(y, [input], move |g| Ok([Some(operator.gradient(&x, g)?)])))
}

/// Texts of one length that are computed together: their first rows.
struct Piece {
    length: usize,
    starts: Vec<usize>,
}

fn pieces(starts: &[usize], heads: usize) -> Vec<Piece> {
    let mut by_length = BTreeMap::<usize, Vec<usize>>::new();
    for pair in starts.windows(2).filter(|pair| pair[1] > pair[0]) {
        by_length.entry(pair[1] - pair[0]).or_default().push(pair[0]);
    }
    let cut = |(length, starts): (usize, Vec<usize>)| {
        let at_once = (SCORES / (heads * length * length)).max(1);
        starts.chunks(at_once).map(|starts| Piece { length, starts: starts.to_vec() }).collect::<Vec<_>>()
    };
    by_length.into_iter().flat_map(cut).collect()
}

struct Attention {
    card: Card,
    heads: usize,
    width: usize,
    pieces: Vec<Piece>,
}

/// Where the matrices of each text and head are: arrays of addresses on the card, one for each kind of matrix.
struct Addresses {
    /// (kinds · count)
    arrays: Tensor,
    first: u64,
    count: usize,
}

impl Addresses {
    /// The matrices of this kind, of these numbers, with rows of this stride.
    fn of(&self, kind: usize, dtype: DType, stride: usize) -> Matrix {
        Matrix::at(self.first + (kind * self.count * size_of::<u64>()) as u64, dtype, stride)
    }
}

/// A matrix for each text and head: the columns from `column` on of the text's rows in a tensor of rows of `stride`.
struct Rows<'a> {
    tensor: &'a Tensor,
    stride: usize,
    column: usize,
}

impl Attention {
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    fn scale(&self) -> f64 {
        1.0 / (self.depth() as f64).sqrt()
    }

    /// From the start of a row of scores to that of the next.
    fn stride(&self, length: usize) -> usize {
        if self.card.dtype == DType::BF16 { length.next_multiple_of(ALIGNED) } else { length }
    }

    /// Uploads the addresses of rows, then of matrices of scores.
    fn addresses(&self, piece: &Piece, rows: &[Rows<'_>], scores: &[&Tensor]) -> Result<Addresses> {
        let (bytes, depth) = (self.card.dtype.size_in_bytes(), self.depth());
        let mut all = Vec::with_capacity((rows.len() + scores.len()) * piece.starts.len() * self.heads);
        for Rows { tensor, stride, column } in rows {
            let first = self.card.address(tensor)?;
            let at = |start: &usize, head: usize| first + ((start * stride + column + head * depth) * bytes) as u64;
            all.extend(
                piece
                    .starts
                    .iter()
                    .flat_map(|start| (0..self.heads).map(move |head| (start, head)))
                    .map(|(s, h)| at(s, h)),
            );
        }
        let (count, matrix) = (piece.starts.len() * self.heads, piece.length * self.stride(piece.length));
        for tensor in scores {
            let (first, bytes) = (self.card.address(tensor)?, tensor.dtype().size_in_bytes());
            all.extend((0..count).map(|n| first + (n * matrix * bytes) as u64));
        }
        let arrays = self.card.upload(all.into_iter().map(u64::cast_signed).collect())?;
        let first = self.card.address(&arrays)?;
        Ok(Addresses { arrays, first, count })
    }

    /// Queries, keys or values in rows of all three.
    fn part<'a>(&self, tensor: &'a Tensor, which: usize) -> Rows<'a> {
        Rows { tensor, stride: 3 * self.width, column: which * self.width }
    }

    fn results<'a>(&self, tensor: &'a Tensor) -> Rows<'a> {
        Rows { tensor, stride: self.width, column: 0 }
    }

    fn multiply(&self, addresses: &Addresses, size: Size, [left, right, into]: [Matrix; 3]) -> Result<()> {
        multiply_each(&self.card, addresses.count, size, left, right, into)
    }

    /// Room for the scores of a piece, in what is computed in; and for what products take of them, which is the same unless that is
    /// narrower.
    fn scores(&self, piece: &Piece) -> Result<[Tensor; 2]> {
        let shape = (piece.starts.len() * self.heads, piece.length, self.stride(piece.length));
        let computed = self.card.empty_of(self.card.computed(), shape)?;
        let stored = if self.card.dtype == computed.dtype() { computed.clone() } else { self.card.empty(shape)? };
        Ok([computed, stored])
    }

    fn softmax(&self, piece: &Piece, count: usize, [scores, stored]: &[Tensor; 2]) -> Result<()> {
        let (length, stride) = (piece.length, self.stride(piece.length));
        let stored = Some(stored).filter(|stored| stored.dtype() != scores.dtype());
        let own = arguments![scores, self.scale(), length, stride, stored];
        self.card.blocks("softmax", count * length, &own)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let out = self.card.empty((x.dim(0)?, self.width))?;
        let (wide, depth, number) = (3 * self.width, self.depth(), self.card.dtype);
        for piece in &self.pieces {
            let (length, stride) = (piece.length, self.stride(piece.length));
            let scores = self.scores(piece)?;
            let rows = [self.part(x, 0), self.part(x, 1), self.part(x, 2), self.results(&out)];
            let at = self.addresses(piece, &rows, &[&scores[0], &scores[1]])?;
            let [queries, keys, values] = [0, 1, 2].map(|kind| at.of(kind, number, wide));
            let mixed = at.of(3, number, self.width);
            let (products, probabilities) = (at.of(4, self.card.computed(), stride), at.of(5, number, stride));
            self.multiply(&at, (length, length, depth), [queries, keys.transposed(), products])?;
            self.softmax(piece, at.count, &scores)?;
            self.multiply(&at, (length, depth, length), [probabilities, values, mixed])?;
        }
        Ok(out)
    }

    /// With S the scores and P = softmax(S): `dV = Pᵀ dO`, `dP = dO Vᵀ`, `dS = P · (dP − Σ P · dP) · scale`, `dQ = dS K`, `dK = dSᵀ Q`.
    fn gradient(&self, x: &Tensor, g: &Tensor) -> Result<Tensor> {
        let out = self.card.empty(x.shape())?;
        let (wide, depth, number, computed) = (3 * self.width, self.depth(), self.card.dtype, self.card.computed());
        for piece in &self.pieces {
            let (length, stride) = (piece.length, self.stride(piece.length));
            let (probabilities, scores) = (self.scores(piece)?, self.scores(piece)?);
            let [x, out] = [x, &out].map(|tensor| [0, 1, 2].map(|which| self.part(tensor, which)));
            let rows = [x, out].into_iter().flatten().chain([self.results(g)]).collect::<Vec<_>>();
            let at = self.addresses(piece, &rows, &[&probabilities[0], &probabilities[1], &scores[0], &scores[1]])?;
            let [queries, keys, values] = [0, 1, 2].map(|kind| at.of(kind, number, wide));
            let [for_queries, for_keys, for_values] = [3, 4, 5].map(|kind| at.of(kind, number, wide));
            let from_out = at.of(6, number, self.width);
            let [p_sums, s_sums] = [7, 9].map(|kind| at.of(kind, computed, stride));
            let [p, s] = [8, 10].map(|kind| at.of(kind, number, stride));
            self.multiply(&at, (length, length, depth), [queries, keys.transposed(), p_sums])?;
            self.softmax(piece, at.count, &probabilities)?;
            self.multiply(&at, (length, depth, length), [p.transposed(), from_out, for_values])?;
            self.multiply(&at, (length, length, depth), [from_out, values.transposed(), s_sums])?;
            let own = arguments![&scores[0], &probabilities[0], self.scale(), length, stride, &scores[1]];
            self.card.blocks("softmax_gradient", at.count * length, &own)?;
            self.multiply(&at, (length, depth, length), [s, keys, for_queries])?;
            self.multiply(&at, (length, depth, length), [s.transposed(), queries, for_keys])?;
            drop(at.arrays);
        }
        Ok(out)
    }
}
