//! Dropout (Srivastava et al. 2014), from a random stream that the caller provides.

use antiphon_core::rng::{self, Stream};
use candle_core::{Result, Tensor};

use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::value::Value;

const NAME: &str = "dropout";

/// Sets each value to 0 with this probability and divides the others by `1 − probability`.
///
/// # Errors
/// If `input` is not a tensor of real numbers in main memory.
pub(crate) fn dropout(input: &Value, probability: f64, stream: &mut Stream) -> Result<Value> {
    let kept: Vec<bool> = (0..input.tensor().elem_count()).map(|_| rng::uniform(stream) >= probability).collect();
    let scale = 1.0 / (1.0 - probability);
    on_cuda!(input.tensor(), elementwise::dropout(input, &kept, scale));
    let y = by_number!(input.tensor().dtype(), NAME, masked(&input.tensor().contiguous()?, &kept, scale))?;
    Ok(Value::of(y, [input], move |g| Ok([Some(by_number!(g.dtype(), NAME, masked(g, &kept, scale))?)])))
}

fn masked<T: Number>(input: &Tensor, kept: &[bool], scale: f64) -> Result<Tensor> {
    let scale = T::from_f64(scale);
    let reading = Reading::of(input);
    let pairs = reading.values::<T>(NAME)?.iter().zip(kept);
    tensor(pairs.map(|(x, kept)| if *kept { *x * scale } else { T::ZERO }).collect(), input.shape(), input)
}

#[cfg(test)]
mod tests {
    use super::super::check::{check_gradients, flat, noise};
    use super::*;

    #[test]
    fn the_share_asked_for_is_dropped_and_the_mean_is_kept() {
        let ones = noise(20_000, 1).ones_like().expect("ones");
        let out = flat(dropout(&Value::constant(ones), 0.3, &mut rng::stream(1, &[])).expect("dropout").tensor());
        let dropped = out.iter().filter(|v| **v == 0.0).count() as f64 / out.len() as f64;
        assert!((dropped - 0.3).abs() < 0.02, "{dropped}");
        assert!((out.iter().sum::<f64>() / out.len() as f64 - 1.0).abs() < 0.03);
    }

    #[test]
    fn its_gradient_is_masked_likewise() {
        check_gradients(&[noise((5, 7), 2)], |v| dropout(&v[0], 0.4, &mut rng::stream(3, &[])));
    }
}
