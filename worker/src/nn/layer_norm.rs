//! Layer normalisation (Ba et al. 2016). candle's own fast one has no backward.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::number::{Number, Reading, by_number, dtype, values};
use super::parallel::{each_chunk, each_chunk_sum};

const NAME: &str = "layer_norm";

/// Added to variances (PyTorch's default).
const EPSILON: f64 = 1e-5;

/// Rows whose parameter gradients are summed before the sums are added up. Bits depend on it.
const ROWS_PER_GROUP: usize = 64;

/// `y = (x − mean) / √(variance + ε) · scale + shift`, each row by itself: `input` is (N, W), `scale` and `shift` (W).
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn layer_norm(input: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (_, width) = input.dims2()?;
    if scale.dims1()? != width || shift.dims1()? != width {
        candle_core::bail!("{NAME}: input {:?}, scale {:?}, shift {:?}", input.dims(), scale.dims(), shift.dims());
    }
    input.contiguous()?.apply_op3(scale, shift, LayerNorm { width })
}

struct LayerNorm {
    width: usize,
}

/// Mean, and 1 / √(variance + ε).
fn statistics<T: Number>(row: &[T]) -> (T, T) {
    let width = row.len() as f64;
    let mean = row.iter().map(|x| x.to_f64()).sum::<f64>() / width;
    let variance = row.iter().map(|x| (x.to_f64() - mean) * (x.to_f64() - mean)).sum::<f64>() / width;
    (T::from_f64(mean), T::from_f64(1.0 / (variance + EPSILON).sqrt()))
}

impl LayerNorm {
    fn forward<T: Number>(&self, input: &[T], scale: &[T], shift: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; input.len()];
        let length = ROWS_PER_GROUP * self.width;
        each_chunk(
            &mut out,
            length,
            || (),
            |(), group, out| {
                let rows = input[group * length..].chunks_exact(self.width);
                for (out, x) in out.chunks_exact_mut(self.width).zip(rows) {
                    let (mean, inverse) = statistics(x);
                    for i in 0..self.width {
                        out[i] = (x[i] - mean) * inverse * scale[i] + shift[i];
                    }
                }
            },
        );
        out
    }

    /// With x̂ the normalised row and d = g · scale: `dx = (d − mean(d) − x̂ · mean(d · x̂)) / √(variance + ε)`.
    /// Second come Σ g·x̂ and Σ g over the rows.
    fn backward<T: Number>(&self, input: &[T], scale: &[T], gradient: &[T]) -> (Vec<T>, Vec<f64>) {
        let (width, length) = (self.width, ROWS_PER_GROUP * self.width);
        let mut out = vec![T::ZERO; input.len()];
        let sums = each_chunk_sum(&mut out, length, 2 * width, |group, out, sums| {
            let rows = input[group * length..].chunks_exact(width).zip(gradient[group * length..].chunks_exact(width));
            let (for_scale, for_shift) = sums.split_at_mut(width);
            for (out, (x, g)) in out.chunks_exact_mut(width).zip(rows) {
                let (mean, inverse) = statistics(x);
                let (mut sum, mut product) = (0.0, 0.0);
                for i in 0..width {
                    let (normal, d) = ((x[i] - mean) * inverse, g[i] * scale[i]);
                    for_scale[i] += (g[i] * normal).to_f64();
                    for_shift[i] += g[i].to_f64();
                    sum += d.to_f64();
                    product += (d * normal).to_f64();
                }
                let (sum, product) = (T::from_f64(sum / width as f64), T::from_f64(product / width as f64));
                for i in 0..width {
                    out[i] = (g[i] * scale[i] - sum - (x[i] - mean) * inverse * product) * inverse;
                }
            }
        });
        (out, sums)
    }

    fn run<T: Number>(&self, [x, scale, shift]: [(&CpuStorage, &Layout); 3]) -> Result<CpuStorage> {
        let read = |(storage, layout)| values::<T>(storage, layout, NAME);
        Ok(T::to_cpu_storage_owned(self.forward(read(x)?, read(scale)?, read(shift)?)))
    }

    fn gradients<T: Number>(&self, [x, scale, gradient]: [&Tensor; 3]) -> Result<[Tensor; 3]> {
        let (x_read, s_read, g_read) = (Reading::of(x), Reading::of(scale), Reading::of(gradient));
        let (for_input, sums) = self.backward::<T>(x_read.values(NAME)?, s_read.values(NAME)?, g_read.values(NAME)?);
        let (for_scale, for_shift) = sums.split_at(self.width);
        let vector = |sums: &[f64]| Tensor::from_slice(sums, self.width, x.device())?.to_dtype(x.dtype());
        Ok([Tensor::from_vec(for_input, x.shape(), x.device())?, vector(for_scale)?, vector(for_shift)?])
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = by_number!(dtype(s1), NAME, self.run([(s1, l1), (s2, l2), (s3, l3)]))?;
        Ok((out, l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        _shift: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, scale, shift] = by_number!(x.dtype(), NAME, self.gradients([x, scale, &g.contiguous()?]))?;
        Ok((Some(x), Some(scale), Some(shift)))
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
        let y = layer_norm(&x, &one, &zero).expect("ours");
        let centred = x.broadcast_sub(&x.mean_keepdim(1).expect("mean")).expect("centred");
        let variance = centred.sqr().and_then(|s| s.mean_keepdim(1)).expect("variance");
        let expected = centred.broadcast_div(&(variance + EPSILON).and_then(|v| v.sqrt()).expect("deviation"));
        assert_close(&y, &expected.expect("candle's"), 1e-13);
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        check_gradients(&[noise((3, 5), 1), noise(5, 2), noise(5, 3)], |v| layer_norm(&v[0], &v[1], &v[2]));
        check_gradients(&[noise((70, 3), 4), noise(3, 5), noise(3, 6)], |v| layer_norm(&v[0], &v[1], &v[2]));
    }
}
