//! Means over segments of rows, one per sample.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::value::Value;

const NAME: &str = "segment_mean";

/// `y[b] = mean of rows segments[b]`: `input` is (N, W), the result (B, W). The mean of no rows is 0.
///
/// # Errors
/// If a segment exceeds the input.
pub(crate) fn segment_mean(input: &Value, segments: Vec<Range<usize>>) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (rows, width) = x.dims2()?;
    if segments.iter().any(|segment| segment.end > rows) {
        candle_core::bail!("{NAME}: {segments:?} of {rows} rows");
    }
    on_cuda!(x, rows::segment_mean(input, &segments));
    let operator = SegmentMean { segments, rows, width };
    let y = by_number!(x.dtype(), NAME, operator.forward(&x))?;
    Ok(Value::of(y, [input], move |g| Ok([Some(by_number!(g.dtype(), NAME, operator.gradient(g))?)])))
}

struct SegmentMean {
    segments: Vec<Range<usize>>,
    rows: usize,
    width: usize,
}

impl SegmentMean {
    fn forward<T: Number>(&self, x: &Tensor) -> Result<Tensor> {
        let reading = Reading::of(x);
        let (input, width) = (reading.values::<T>(NAME)?, self.width);
        let mut out = vec![T::ZERO; self.segments.len() * width];
        for (out, segment) in out.chunks_exact_mut(width).zip(&self.segments) {
            for row in input[segment.start * width..segment.end * width].chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(y, x)| *y += *x);
            }
            let share = share::<T>(segment);
            out.iter_mut().for_each(|y| *y *= share);
        }
        tensor(out, (self.segments.len(), width), x)
    }

    fn gradient<T: Number>(&self, gradient: &Tensor) -> Result<Tensor> {
        let (reading, width) = (Reading::of(gradient), self.width);
        let mut out = vec![T::ZERO; self.rows * width];
        for (g, segment) in reading.values::<T>(NAME)?.chunks_exact(width).zip(&self.segments) {
            let share = share::<T>(segment);
            for row in out[segment.start * width..segment.end * width].chunks_exact_mut(width) {
                row.iter_mut().zip(g).for_each(|(x, g)| *x += *g * share);
            }
        }
        tensor(out, (self.rows, width), gradient)
    }
}

/// 1 / length.
fn share<T: Number>(segment: &Range<usize>) -> T {
    T::from_f64(1.0 / segment.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    fn sequences() -> Vec<Range<usize>> {
        vec![0..1, 1..6]
    }

    #[test]
    fn each_sequence_has_the_mean_of_its_rows() {
        let x = noise((6, 3), 1);
        let rest = x.narrow(0, 1, 5).and_then(|r| r.mean_keepdim(0)).expect("a mean");
        let expected = Tensor::cat(&[&x.narrow(0, 0, 1).expect("a row"), &rest], 0).expect("two rows");
        assert_close(segment_mean(&Value::constant(x), sequences()).expect("ours").tensor(), &expected, 1e-14);
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        check_gradients(&[noise((6, 3), 1)], |v| segment_mean(&v[0], sequences()));
        check_gradients(&[noise((6, 3), 1)], |v| segment_mean(&v[0], vec![0..1, 3..5, 5..5]));
    }
}
