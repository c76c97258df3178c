//! Self-attention within each text: texts of one length are multiplied together, head by head.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::launch::{Card, arguments};
use super::product::{Matrix, Size, multiply_each};
use crate::nn::value::Value;

/// Scores that are held at a time, unless those of a single text are more.
const SCORES: usize = 1 << 26;

/// See [`crate::nn::attention::attention`].
pub(crate) fn attention(input: &Value, heads: usize, starts: &Arc<[usize]>) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let width = x.dim(1)? / 3;
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
    /// `kinds` of matrices, each with its row's stride.
    fn of(&self, kind: usize, stride: usize) -> Matrix {
        Matrix::at(self.first + (kind * self.count * size_of::<u64>()) as u64, stride)
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
        let count = piece.starts.len() * self.heads;
        for tensor in scores {
            let first = self.card.address(tensor)?;
            all.extend((0..count).map(|n| first + (n * piece.length * piece.length * bytes) as u64));
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

    fn softmax(&self, piece: &Piece, count: usize, scores: &Tensor) -> Result<()> {
        let rows = count * piece.length;
        self.card.blocks("softmax", rows, &arguments![scores, self.scale(), piece.length])
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let out = self.card.empty((x.dim(0)?, self.width))?;
        let (wide, depth) = (3 * self.width, self.depth());
        for piece in &self.pieces {
            let length = piece.length;
            let scores = self.card.empty((piece.starts.len() * self.heads, length, length))?;
            let rows = [self.part(x, 0), self.part(x, 1), self.part(x, 2), self.results(&out)];
            let at = self.addresses(piece, &rows, &[&scores])?;
            let (queries, keys, values) = (at.of(0, wide), at.of(1, wide), at.of(2, wide));
            let (mixed, probabilities) = (at.of(3, self.width), at.of(4, length));
            self.multiply(&at, (length, length, depth), [queries, keys.transposed(), probabilities])?;
            self.softmax(piece, at.count, &scores)?;
            self.multiply(&at, (length, depth, length), [probabilities, values, mixed])?;
        }
        Ok(out)
    }

    /// With S the scores and P = softmax(S): `dV = Pᵀ dO`, `dP = dO Vᵀ`, `dS = P · (dP − Σ P · dP) · scale`, `dQ = dS K`, `dK = dSᵀ Q`.
    fn gradient(&self, x: &Tensor, g: &Tensor) -> Result<Tensor> {
        let out = self.card.empty(x.shape())?;
        let (wide, depth) = (3 * self.width, self.depth());
        for piece in &self.pieces {
            let length = piece.length;
            let shape = (piece.starts.len() * self.heads, length, length);
            let (probabilities, scores) = (self.card.empty(shape)?, self.card.empty(shape)?);
            let [x, out] = [x, &out].map(|tensor| [0, 1, 2].map(|which| self.part(tensor, which)));
            let rows = [x, out].into_iter().flatten().chain([self.results(g)]).collect::<Vec<_>>();
            let at = self.addresses(piece, &rows, &[&probabilities, &scores])?;
            let [queries, keys, values] = [0, 1, 2].map(|kind| at.of(kind, wide));
            let [for_queries, for_keys, for_values] = [3, 4, 5].map(|kind| at.of(kind, wide));
            let (from_out, p, s) = (at.of(6, self.width), at.of(7, length), at.of(8, length));
            self.multiply(&at, (length, length, depth), [queries, keys.transposed(), p])?;
            self.softmax(piece, at.count, &probabilities)?;
            self.multiply(&at, (length, depth, length), [p.transposed(), from_out, for_values])?;
            self.multiply(&at, (length, length, depth), [from_out, values.transposed(), s])?;
            let own = arguments![&scores, &probabilities, self.scale(), length];
            self.card.blocks("softmax_gradient", at.count * length, &own)?;
            self.multiply(&at, (length, depth, length), [s, keys, for_queries])?;
            self.multiply(&at, (length, depth, length), [s.transposed(), queries, for_keys])?;
            drop(at.arrays);
        }
        Ok(out)
    }
}
