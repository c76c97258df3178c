//! The mean over the tokens of each text.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::embedding::Packed;
use super::number::{Number, Reading, by_number, dtype, values};

const NAME: &str = "segment_mean";

/// `y[b] = mean of the rows of text b`: `input` is (N, W), the result (B, W).
///
/// # Errors
/// When `input` has another number of rows than the texts have tokens.
pub(crate) fn segment_mean(input: &Tensor, texts: &Arc<Packed>) -> Result<Tensor> {
    let (rows, width) = input.dims2()?;
    if rows != texts.tokens.len() {
        candle_core::bail!("{NAME}: {rows} rows for {} tokens", texts.tokens.len());
    }
    input.contiguous()?.apply_op1(SegmentMean { texts: Arc::clone(texts), width })
}

struct SegmentMean {
    texts: Arc<Packed>,
    width: usize,
}

impl SegmentMean {
    fn run<T: Number>(&self, storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
        let (input, width) = (values::<T>(storage, layout, NAME)?, self.width);
        let mut out = vec![T::ZERO; (self.texts.starts.len() - 1) * width];
        for (out, text) in out.chunks_exact_mut(width).zip(self.texts.starts.windows(2)) {
            for row in input[text[0] * width..text[1] * width].chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(y, x)| *y += *x);
            }
            let share = share::<T>(text);
            out.iter_mut().for_each(|y| *y *= share);
        }
        Ok(T::to_cpu_storage_owned(out))
    }

    fn gradient<T: Number>(&self, input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let reading = Reading::of(gradient);
        let mut out = Vec::with_capacity(input.elem_count());
        for (g, text) in reading.values::<T>(NAME)?.chunks_exact(self.width).zip(self.texts.starts.windows(2)) {
            let share = share::<T>(text);
            for _ in text[0]..text[1] {
                out.extend(g.iter().map(|g| *g * share));
            }
        }
        Tensor::from_vec(out, input.shape(), input.device())
    }
}

/// 1 / length; every text has a token at least.
fn share<T: Number>(text: &[usize]) -> T {
    T::from_f64(1.0 / (text[1] - text[0]).max(1) as f64)
}

impl CustomOp1 for SegmentMean {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = by_number!(dtype(storage), NAME, self.run(storage, layout))?;
        Ok((out, (self.texts.starts.len() - 1, self.width).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        by_number!(x.dtype(), NAME, self.gradient(x, &g.contiguous()?)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    fn texts() -> Arc<Packed> {
        Arc::new(Packed { tokens: vec![0; 6], starts: vec![0, 1, 6] })
    }

    #[test]
    fn each_text_has_the_mean_of_its_own_rows() {
        let x = noise((6, 3), 1);
        let rest = x.narrow(0, 1, 5).and_then(|r| r.mean_keepdim(0)).expect("a mean");
        let expected = Tensor::cat(&[&x.narrow(0, 0, 1).expect("a row"), &rest], 0).expect("two rows");
        assert_close(&segment_mean(&x, &texts()).expect("ours"), &expected, 1e-14);
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        check_gradients(&[noise((6, 3), 1)], |v| segment_mean(&v[0], &texts()));
    }
}
