//! Self-attention within each sequence (Vaswani et al. 2017).

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::buffer::unwritten;
use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::parallel::{each_block, split_at_rows};
use super::product::{View, multiply};
use super::value::Value;
use super::vector::vectorised;

const NAME: &str = "attention";

/// For each sequence and each of `heads`: `softmax(Q Kᵀ / √d) V`, `d = W / heads`. `input` is (N, 3W), in each row
/// queries, keys and values, head after head; the result is (N, W). `starts` has the first row of each sequence, then
/// N. Sequences do not attend to each other.
///
/// # Errors
/// If the rows do not match the sequences, or the heads do not divide the width.
pub(crate) fn attention(input: &Value, heads: usize, starts: &Arc<[usize]>) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (rows, triple) = x.dims2()?;
    let sequences = starts.first() == Some(&0) && starts.last() == Some(&rows) && starts.is_sorted();
    if !sequences || heads == 0 || triple % (3 * heads) != 0 {
        candle_core::bail!("{NAME}: ({rows}, {triple}) for sequences that start at {starts:?} and {heads} heads");
    }
    on_cuda!(x, attention::attention(input, heads, starts));
    let operator = Attention { starts: Arc::clone(starts), heads, width: triple / 3 };
    let y = by_number!(x.dtype(), NAME, operator.forward(&x))?;
    Ok(Value::of(y, [input], move |g| Ok([Some(by_number!(g.dtype(), NAME, operator.gradient(&x, g))?)])))
}

struct Attention {
    starts: Arc<[usize]>,
    heads: usize,
    width: usize,
}

/// Queries, keys or values of one head of one sequence: `depth` columns, starting at `column`, of rows of `stride`.
fn columns<T: Number>(rows: &[T], length: usize, column: usize, depth: usize, stride: usize) -> View<'_, T> {
    View::strided(&rows[column..], length, depth, stride)
}

/// Writes a (length, depth) matrix to the columns that start at `column`, in rows of `stride`.
fn position<T: Number>(matrix: &[T], into: &mut [T], column: usize, depth: usize, stride: usize) {
    for (row, into) in matrix.chunks_exact(depth).zip(into.chunks_exact_mut(stride)) {
        into[column..column + depth].copy_from_slice(row);
    }
}

impl Attention {
    fn depth(&self) -> usize {
        self.width / self.heads
    }

    fn scale<T: Number>(&self) -> T {
        T::from_f64(1.0 / (self.depth() as f64).sqrt())
    }

    /// The probabilities (length, length) of one head.
    fn probabilities<T: Number>(&self, rows: &[T], length: usize, head: usize) -> Vec<T> {
        let (depth, stride) = (self.depth(), 3 * self.width);
        let queries = columns(rows, length, head * depth, depth, stride);
        let keys = columns(rows, length, self.width + head * depth, depth, stride);
        let mut scores = unwritten(length * length);
        multiply(&mut scores, false, queries, keys.transposed());
        let scale = self.scale();
        vectorised(
            #[inline(always)]
            || {
                for row in scores.chunks_exact_mut(length) {
                    softmax(row, scale);
                }
            },
        );
        scores
    }

    fn text_forward<T: Number>(&self, rows: &[T], out: &mut [T]) {
        let (depth, length) = (self.depth(), out.len() / self.width);
        let mut mixed = unwritten(length * depth);
        for head in 0..self.heads {
            let probabilities = self.probabilities(rows, length, head);
            let values = columns(rows, length, 2 * self.width + head * depth, depth, 3 * self.width);
            multiply(&mut mixed, false, View::new(&probabilities, length, length), values);
            position(&mixed, out, head * depth, depth, self.width);
        }
    }

    /// With S the scores and P = softmax(S): `dV = Pᵀ dO`, `dP = dO Vᵀ`, `dS = P · (dP − Σ P · dP) · scale`,
    /// `dQ = dS K`, `dK = dSᵀ Q`.
    fn text_backward<T: Number>(&self, rows: &[T], gradient: &[T], out: &mut [T]) {
        let (depth, stride, width) = (self.depth(), 3 * self.width, self.width);
        let length = gradient.len() / width;
        let mut product = unwritten(length * depth);
        let mut scores = unwritten(length * length);
        for first in (0..self.heads).map(|head| head * depth) {
            let [queries, keys, values] =
                [0, width, 2 * width].map(|c| columns(rows, length, c + first, depth, stride));
            let from_out = columns(gradient, length, first, depth, width);
            let probabilities = self.probabilities(rows, length, first / depth);
            multiply(&mut product, false, View::new(&probabilities, length, length).transposed(), from_out);
            position(&product, out, 2 * width + first, depth, stride);
            multiply(&mut scores, false, from_out, values.transposed());
            vectorised(
                #[inline(always)]
                || {
                    for (s, p) in scores.chunks_exact_mut(length).zip(probabilities.chunks_exact(length)) {
                        softmax_backward(s, p, self.scale());
                    }
                },
            );
            let scores = View::new(&scores, length, length);
            multiply(&mut product, false, scores, keys);
            position(&product, out, first, depth, stride);
            multiply(&mut product, false, scores.transposed(), queries);
            position(&product, out, width + first, depth, stride);
        }
    }

    fn forward<T: Number>(&self, x: &Tensor) -> Result<Tensor> {
        let reading = Reading::of(x);
        let input = reading.values::<T>(NAME)?;
        let mut out = unwritten(input.len() / 3);
        each_block(split_at_rows(&mut out, self.width, &self.starts), |sequence, out| {
            let rows = &input[self.starts[sequence] * 3 * self.width..][..3 * out.len()];
            self.text_forward(rows, out);
        });
        tensor(out, (x.dim(0)?, self.width), x)
    }

    fn gradient<T: Number>(&self, input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (x_read, g_read) = (Reading::of(input), Reading::of(gradient));
        let (input_values, gradient) = (x_read.values::<T>(NAME)?, g_read.values::<T>(NAME)?);
        let mut out = unwritten(input_values.len());
        each_block(split_at_rows(&mut out, 3 * self.width, &self.starts), |sequence, out| {
            let start = self.starts[sequence] * self.width;
            let rows = &input_values[3 * start..][..out.len()];
            self.text_backward(rows, &gradient[start..][..out.len() / 3], out);
        });
        tensor(out, input.shape(), input)
    }
}

/// `row ← softmax(scale · row)`
#[inline(always)]
fn softmax<T: Number>(row: &mut [T], scale: T) {
    let largest = in_lanes(row.len(), T::NEGATIVE_INFINITY, |i| row[i], |a, b| if b > a { b } else { a });
    for value in row.iter_mut() {
        *value = ((*value - largest) * scale).exponential();
    }
    let inverse = T::ONE / in_lanes(row.len(), T::ZERO, |i| row[i], |a, b| a + b);
    for value in row.iter_mut() {
        *value *= inverse;
    }
}

/// Reduces `length` values in eight lanes, and the lanes at the end. The order is fixed and suits vector units.
#[inline(always)]
fn in_lanes<T: Number>(length: usize, start: T, value: impl Fn(usize) -> T, together: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; 8];
    let whole = length - length % 8;
    for first in (0..whole).step_by(8) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum = together(*sum, value(first + lane));
        }
    }
    for (lane, at) in (whole..length).enumerate() {
        lanes[lane] = together(lanes[lane], value(at));
    }
    lanes.into_iter().fold(start, together)
}

/// `gradient ← probabilities · (gradient − Σ probabilities · gradient) · scale`
#[inline(always)]
fn softmax_backward<T: Number>(gradient: &mut [T], probabilities: &[T], scale: T) {
    let mean = in_lanes(gradient.len(), T::ZERO, |i| gradient[i] * probabilities[i], |a, b| a + b);
    for (g, p) in gradient.iter_mut().zip(probabilities) {
        *g = (*g - mean) * *p * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    fn sequences() -> Arc<[usize]> {
        Arc::new([0, 3, 4, 8])
    }

    /// The same operator, composed of candle's operators, sequence by sequence and head by head.
    fn composed(input: &Tensor, heads: usize, sequences: &[usize]) -> Result<Tensor> {
        let width = input.dim(1)? / 3;
        let depth = width / heads;
        let mut rows = Vec::new();
        for sequence in sequences.windows(2) {
            let sequence = input.narrow(0, sequence[0], sequence[1] - sequence[0])?;
            let mut columns = Vec::new();
            for head in 0..heads {
                let projection = |n: usize| sequence.narrow(1, n * width + head * depth, depth)?.contiguous();
                let scores =
                    (projection(0)?.matmul(&projection(1)?.t()?.contiguous()?)? / (depth as f64).sqrt())?.exp()?;
                columns.push(scores.broadcast_div(&scores.sum_keepdim(1)?)?.matmul(&projection(2)?)?);
            }
            rows.push(Tensor::cat(&columns, 1)?);
        }
        Tensor::cat(&rows, 0)
    }

    #[test]
    fn it_is_the_composition_of_its_parts() {
        let input = noise((8, 12), 1);
        for heads in [1, 2, 4] {
            let expected = composed(&input, heads, &sequences()).expect("composed");
            let ours = attention(&Value::constant(input.clone()), heads, &sequences()).expect("ours");
            assert_close(ours.tensor(), &expected, 1e-13);
        }
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        check_gradients(&[noise((8, 12), 1)], |v| attention(&v[0], 2, &sequences()));
    }
}
