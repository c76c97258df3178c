//! Dropout (Srivastava et al. 2014), from a stream that is handed in.

use antiphon_core::rng::{self, Stream};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::number::{Number, by_number, dtype, values};

const NAME: &str = "dropout";

/// Sets each value to 0 with this probability and divides the others by `1 − probability`.
///
/// # Errors
/// When `input` is not a tensor of real numbers in main memory.
pub(crate) fn dropout(input: &Tensor, probability: f64, stream: &mut Stream) -> Result<Tensor> {
    let kept = (0..input.elem_count()).map(|_| rng::uniform(stream) >= probability).collect();
    input.contiguous()?.apply_op1(Dropout { kept, scale: 1.0 / (1.0 - probability) })
}

struct Dropout {
    kept: Vec<bool>,
    scale: f64,
}

impl Dropout {
    fn run<T: Number>(&self, storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
        let scale = T::from_f64(self.scale);
        let out = values::<T>(storage, layout, NAME)?.iter().zip(&self.kept);
        Ok(T::to_cpu_storage_owned(out.map(|(x, kept)| if *kept { *x * scale } else { T::ZERO }).collect()))
    }
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((by_number!(dtype(storage), NAME, self.run(storage, layout))?, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gradient.contiguous()?.apply_op1_no_bwd(self).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{check_gradients, flat, noise};
    use super::*;

    #[test]
    fn the_share_asked_for_is_dropped_and_the_mean_is_kept() {
        let ones = noise(20_000, 1).ones_like().expect("ones");
        let out = flat(&dropout(&ones, 0.3, &mut rng::stream(1, &[])).expect("dropout"));
        let dropped = out.iter().filter(|v| **v == 0.0).count() as f64 / out.len() as f64;
        assert!((dropped - 0.3).abs() < 0.02, "{dropped}");
        assert!((out.iter().sum::<f64>() / out.len() as f64 - 1.0).abs() < 0.03);
    }

    #[test]
    fn its_gradient_is_masked_likewise() {
        check_gradients(&[noise((5, 7), 2)], |v| dropout(&v[0], 0.4, &mut rng::stream(3, &[])));
    }
}
