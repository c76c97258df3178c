//! The mean over the tokens of each text.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::embedding::Packed;
use super::number::{Number, Reading, by_number, tensor};
use super::value::Value;

const NAME: &str = "segment_mean";

/// `y[b] = mean of the rows of text b`: `input` is (N, W), the result (B, W).
///
/// # Errors
/// When `input` has another number of rows than the texts have tokens.
pub(crate) fn segment_mean(input: &Value, texts: &Arc<Packed>) -> Result<Value> {
    let (rows, width) = input.tensor().dims2()?;
    if rows != texts.tokens.len() {
        candle_core::bail!("{NAME}: {rows} rows for {} tokens", texts.tokens.len());
    }
    let operator = SegmentMean { texts: Arc::clone(texts), width };
    let y = by_number!(input.tensor().dtype(), NAME, operator.forward(&input.tensor().contiguous()?))?;
    Ok(Value::of(y, [input], move |g| Ok([Some(by_number!(g.dtype(), NAME, operator.gradient(g))?)])))
}

struct SegmentMean {
    texts: Arc<Packed>,
    width: usize,
}

impl SegmentMean {
    fn forward<T: Number>(&self, x: &Tensor) -> Result<Tensor> {
        let reading = Reading::of(x);
        let (input, width) = (reading.values::<T>(NAME)?, self.width);
        let mut out = vec![T::ZERO; (self.texts.starts.len() - 1) * width];
        for (out, text) in out.chunks_exact_mut(width).zip(self.texts.starts.windows(2)) {
            for row in input[text[0] * width..text[1] * width].chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(y, x)| *y += *x);
            }
            let share = share::<T>(text);
            out.iter_mut().for_each(|y| *y *= share);
        }
        tensor(out, (self.texts.starts.len() - 1, width), x)
    }

    fn gradient<T: Number>(&self, gradient: &Tensor) -> Result<Tensor> {
        let reading = Reading::of(gradient);
        let mut out = Vec::with_capacity(self.texts.tokens.len() * self.width);
        for (g, text) in reading.values::<T>(NAME)?.chunks_exact(self.width).zip(self.texts.starts.windows(2)) {
            let share = share::<T>(text);
            for _ in text[0]..text[1] {
                out.extend(g.iter().map(|g| *g * share));
            }
        }
        tensor(out, (self.texts.tokens.len(), self.width), gradient)
    }
}

/// 1 / length; every text has a token at least.
fn share<T: Number>(text: &[usize]) -> T {
    T::from_f64(1.0 / (text[1] - text[0]).max(1) as f64)
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
        assert_close(segment_mean(&Value::constant(x), &texts()).expect("ours").tensor(), &expected, 1e-14);
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        check_gradients(&[noise((6, 3), 1)], |v| segment_mean(&v[0], &texts()));
    }
}
