//! Arithmetic whose result is the same on every machine: only additions, multiplications and square roots, whose
//! rounding IEEE 754 defines. The mathematics libraries of platforms may round `sin` and `exp` differently.

use antiphon_core::rng::{self, Stream};

/// sin(2π x), for x in full turns. The error is below 1e-7.
pub(super) fn sine(turns: f64) -> f64 {
    let x = turns - (turns + 0.5).floor();
    let x = if x > 0.25 {
        0.5 - x
    } else if x < -0.25 {
        -0.5 - x
    } else {
        x
    };
    let a = x * std::f64::consts::TAU;
    let s = a * a;
    let series = 1.0 - s / 110.0;
    let series = 1.0 - s / 72.0 * series;
    let series = 1.0 - s / 42.0 * series;
    let series = 1.0 - s / 20.0 * series;
    a * (1.0 - s / 6.0 * series)
}

/// cos(2π x), for x in full turns.
pub(super) fn cosine(turns: f64) -> f64 {
    sine(turns + 0.25)
}

/// e^x for |x| up to 700. The relative error is below 1e-7.
pub(super) fn exponential(x: f64) -> f64 {
    let doublings = x * std::f64::consts::LOG2_E;
    let whole = doublings.floor().clamp(-1020.0, 1020.0);
    let a = (doublings - whole) * std::f64::consts::LN_2;
    let mut series = 1.0;
    for n in (1..=9).rev() {
        series = 1.0 + a / f64::from(n) * series;
    }
    let exponent = u64::from_le_bytes((1023 + whole as i64).to_le_bytes());
    series * f64::from_bits(exponent << 52)
}

/// 10^(x / 20): the ratio of amplitudes of x decibels.
pub(super) fn decibels(x: f64) -> f64 {
    exponential(x * std::f64::consts::LN_10 / 20.0)
}

/// Draws from one random stream.
pub(super) struct Dice(Stream);

impl Dice {
    /// Draws of `stream`, from its start.
    pub(super) fn new(stream: Stream) -> Self {
        Self(stream)
    }

    /// A number in [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * rng::uniform(&mut self.0)
    }

    /// True with this probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        rng::uniform(&mut self.0) < probability
    }

    /// An integer in 0 .. `n`. `n` is at least 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((rng::uniform(&mut self.0) * n as f64) as usize).min(n - 1)
    }

    /// One of `choices`, which is not empty.
    pub(super) fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Nearly normal with mean 0 and deviation 1: the sum of three uniform draws, which lies in [-3, 3].
    pub(super) fn bell(&mut self) -> f64 {
        let bits = (rng::uniform(&mut self.0) * (1_u64 << 51) as f64) as u64;
        let uniform = |shift: u32| ((bits >> shift) & 0x1_ffff) as f64;
        (uniform(0) + uniform(17) + uniform(34)) / f64::from(1 << 16) - 3.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_the_mathematics_library() {
        for i in -4000..4000 {
            let x = f64::from(i) / 777.0;
            assert!((sine(x) - (x * std::f64::consts::TAU).sin()).abs() < 1e-7, "sine of {x}");
            assert!((cosine(x) - (x * std::f64::consts::TAU).cos()).abs() < 1e-7, "cosine of {x}");
            assert!((exponential(x) / x.exp() - 1.0).abs() < 1e-7, "exponential of {x}");
        }
        assert!((decibels(20.0) - 10.0).abs() < 1e-6);
        assert!((decibels(-6.0) - 0.501_187).abs() < 1e-6);
    }

    #[test]
    fn the_bell_has_mean_0_and_deviation_1() {
        let mut dice = Dice::new(rng::stream(1, &["bell".into()]));
        let draws: Vec<f64> = (0..20_000).map(|_| dice.bell()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.03, "variance {variance}");
    }
}
