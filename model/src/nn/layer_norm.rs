//! Layer normalisation (Ba et al. 2016). candle's fast version has no backward pass.

use candle_core::{Result, Tensor};

use super::buffer::unwritten;
use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::parallel::{each_chunk, each_chunk_sum};
use super::value::Value;
use super::vector::vectorised;

const NAME: &str = "layer_norm";

/// PyTorch's default for the number added to variances.
pub(crate) const EPSILON: f64 = 1e-5;

/// The number of rows per group, whose parameter gradients are summed first. Bits depend on it.
const ROWS_PER_GROUP: usize = 64;

/// `y = (x − mean) / √(variance + ε) · scale + shift`, row by row: `input` is (N, W), `scale` and `shift` (W).
///
/// # Errors
/// If the shapes do not fit.
pub(crate) fn layer_norm(input: &Value, scale: &Value, shift: &Value, epsilon: f64) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (_, width) = x.dims2()?;
    let (scale_tensor, shift_tensor) = (scale.tensor().clone(), shift.tensor());
    if scale_tensor.dims1()? != width || shift_tensor.dims1()? != width {
        candle_core::bail!("{NAME}: input {:?}, scale {scale_tensor:?}, shift {shift_tensor:?}", x.dims());
    }
    on_cuda!(x, layer_norm::layer_norm(input, scale, shift, epsilon));
    let operator = LayerNorm { width, epsilon };
    let y = by_number!(x.dtype(), NAME, operator.forward([&x, &scale_tensor, shift_tensor]))?;
    let wanted = [input, scale, shift].map(Value::wanted);
    Ok(Value::of(y, [input, scale, shift], move |g| {
        by_number!(g.dtype(), NAME, operator.gradients([&x, &scale_tensor, g], wanted))
    }))
}

struct LayerNorm {
    width: usize,
    epsilon: f64,
}

/// The sum of `term` over a row, in eight lanes that are added up at the end. The order is fixed and suits vector
/// units.
#[inline(always)]
fn sum<T: Number>(row: &[T], term: impl Fn(usize, f64) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    for (n, eight) in row.chunks(8).enumerate() {
        for (lane, x) in eight.iter().enumerate() {
            lanes[lane] += term(8 * n + lane, x.to_f64());
        }
    }
    lanes.iter().sum()
}

/// Mean, and 1 / √(variance + ε).
#[inline(always)]
fn statistics<T: Number>(row: &[T], epsilon: f64) -> (T, T) {
    let width = row.len() as f64;
    let mean = sum(row, |_, x| x) / width;
    let variance = sum(row, |_, x| (x - mean) * (x - mean)) / width;
    (T::from_f64(mean), T::from_f64(1.0 / (variance + epsilon).sqrt()))
}

impl LayerNorm {
    fn forward<T: Number>(&self, [input, scale, shift]: [&Tensor; 3]) -> Result<Tensor> {
        let readings = [input, scale, shift].map(Reading::of);
        let [x, scale, shift] = [0, 1, 2].map(|n: usize| readings[n].values::<T>(NAME));
        let (x, scale, shift) = (x?, scale?, shift?);
        let mut out = unwritten(x.len());
        let length = ROWS_PER_GROUP * self.width;
        each_chunk(
            &mut out,
            length,
            || (),
            |(), group, out| {
                let rows = x[group * length..].chunks_exact(self.width);
                vectorised(
                    #[inline(always)]
                    || {
                        for (out, x) in out.chunks_exact_mut(self.width).zip(rows) {
                            let (mean, inverse) = statistics(x, self.epsilon);
                            for (((y, x), scale), shift) in out.iter_mut().zip(x).zip(scale).zip(shift) {
                                *y = (*x - mean) * inverse * *scale + *shift;
                            }
                        }
                    },
                );
            },
        );
        tensor(out, input.shape(), input)
    }

    /// With x̂ the normalised row and d = g · scale: `dx = (d − mean(d) − x̂ · mean(d · x̂)) / √(variance + ε)`; then Σ
    /// g·x̂ and Σ g over the rows. Only wanted gradients are computed.
    fn gradients<T: Number>(
        &self,
        [input, scale, gradient]: [&Tensor; 3],
        wanted: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let readings = [input, scale, gradient].map(Reading::of);
        let [x, scale, g] = [0, 1, 2].map(|n: usize| readings[n].values::<T>(NAME));
        let (x, scale, g) = (x?, &scale?[..self.width], g?);
        let (width, length) = (self.width, ROWS_PER_GROUP * self.width);
        let mut out = unwritten(x.len());
        let sums = each_chunk_sum(&mut out, length, 2 * width, |group, out, sums| {
            let rows = x[group * length..].chunks_exact(width).zip(g[group * length..].chunks_exact(width));
            vectorised(
                #[inline(always)]
                || {
                    let (for_scale, for_shift) = sums.split_at_mut(width);
                    for (out, (x, g)) in out.chunks_exact_mut(width).zip(rows) {
                        let (mean, inverse) = statistics(x, self.epsilon);
                        if wanted[1] || wanted[2] {
                            for i in 0..width {
                                out[i] = g[i] * scale[i];
                                for_scale[i] += (g[i] * ((x[i] - mean) * inverse)).to_f64();
                                for_shift[i] += g[i].to_f64();
                            }
                        } else {
                            out.iter_mut().zip(g).zip(scale).for_each(|((d, g), scale)| *d = *g * *scale);
                        }
                        if !wanted[0] {
                            continue;
                        }
                        let mean_d = T::from_f64(sum(out, |_, d| d) / width as f64);
                        let normal = |i: usize| ((x[i] - mean) * inverse).to_f64();
                        let product = T::from_f64(sum(out, |i, d| d * normal(i)) / width as f64);
                        for (d, x) in out.iter_mut().zip(x) {
                            *d = (*d - mean_d - (*x - mean) * inverse * product) * inverse;
                        }
                    }
                },
            );
        });
        let (for_scale, for_shift) = sums.split_at(width);
        let vector = |sums: &[f64]| Tensor::from_slice(sums, width, input.device())?.to_dtype(input.dtype());
        Ok([
            wanted[0].then(|| tensor(out, input.shape(), input)).transpose()?,
            wanted[1].then(|| vector(for_scale)).transpose()?,
            wanted[2].then(|| vector(for_shift)).transpose()?,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    #[test]
    fn rows_have_mean_0_and_deviation_1_before_scale_and_shift() {
        let x = noise((70, 12), 1);
        let (one, zero) = (noise(12, 2).ones_like().expect("ones"), noise(12, 2).zeros_like().expect("zeros"));
        let values = [&x, &one, &zero].map(|t| Value::constant(t.clone()));
        let y = layer_norm(&values[0], &values[1], &values[2], EPSILON).expect("ours");
        let centred = x.broadcast_sub(&x.mean_keepdim(1).expect("mean")).expect("centred");
        let variance = centred.sqr().and_then(|s| s.mean_keepdim(1)).expect("variance");
        let expected = centred.broadcast_div(&(variance + EPSILON).and_then(|v| v.sqrt()).expect("deviation"));
        assert_close(y.tensor(), &expected.expect("candle's"), 1e-13);
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        check_gradients(&[noise((3, 5), 1), noise(5, 2), noise(5, 3)], |v| layer_norm(&v[0], &v[1], &v[2], EPSILON));
        check_gradients(&[noise((70, 3), 4), noise(3, 5), noise(3, 6)], |v| layer_norm(&v[0], &v[1], &v[2], EPSILON));
    }
}
