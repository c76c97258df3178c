//! Resampling by a windowed sinc, phase by phase: exact ratios, reproducible bits, no delay.
//!
//! y(j) = Σ_n x(n) h(j r - n), r = from / to, h(t) = c sinc(c t) times a Hann window over ±[`LOBES`] / c, c = min(1, to
//! / from): frequencies below the lower Nyquist frequency pass unchanged, higher ones are removed instead of being
//! aliased.

use std::f64::consts::PI;

/// Zero crossings of the sinc on either side.
const LOBES: f64 = 16.0;

/// At most `limit` samples at `to` Hz.
pub(super) fn resample(samples: &[f32], from: u32, to: u32, limit: usize) -> Vec<f32> {
    if from == to {
        return samples[..samples.len().min(limit)].to_vec();
    }
    let divisor = greatest_common_divisor(from, to);
    let (down, up) = (u64::from(from / divisor), u64::from(to / divisor));
    let length = ((samples.len() as u64 * up).div_ceil(down) as usize).min(limit);
    let mut phases: Vec<Option<Vec<f32>>> = vec![None; up.min(length as u64) as usize];
    (0..length as u64)
        .map(|j| {
            let (whole, phase) = (j * down / up, j * down % up);
            let taps = phases[(j % up) as usize].get_or_insert_with(|| taps(phase as f64 / up as f64, from, to));
            let half = (taps.len() / 2) as i64;
            let first = whole as i64 - half + 1;
            let skipped = (-first).max(0) as usize;
            let start = first.max(0) as usize;
            taps.iter().skip(skipped).zip(samples.get(start..).unwrap_or(&[])).map(|(tap, x)| tap * x).sum()
        })
        .collect()
}

/// h at offset - n, for n from 1 - half to half, scaled to a sum of 1.
fn taps(offset: f64, from: u32, to: u32) -> Vec<f32> {
    let cutoff = (f64::from(to) / f64::from(from)).min(1.0);
    let reach = LOBES / cutoff;
    let half = reach.ceil() as i64;
    let kernel = |n: i64| {
        let t = offset - n as f64;
        if t.abs() >= reach {
            return 0.0;
        }
        let window = 0.5 + 0.5 * (PI * t / reach).cos();
        let x = PI * cutoff * t;
        window * if x.abs() < 1e-12 { 1.0 } else { x.sin() / x }
    };
    let weights: Vec<f64> = (1 - half..=half).map(kernel).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f64, samples: usize) -> Vec<f32> {
        (0..samples).map(|i| (2.0 * PI * hertz * i as f64 / f64::from(rate)).sin() as f32).collect()
    }

    #[test]
    fn a_tone_below_both_limits_stays_itself() {
        for (from, to) in [(44_100, 16_000), (8000, 16_000), (16_000, 8000), (22_050, 8000), (11_025, 16_001)] {
            let resampled = resample(&tone(from, 440.0, from as usize), from, to, usize::MAX);
            let expected = tone(to, 440.0, resampled.len());
            assert_eq!(resampled.len(), to as usize);
            let inner = 200..resampled.len() - 200;
            let worst = inner.map(|i| (resampled[i] - expected[i]).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-3, "{from} to {to}: {worst}");
        }
    }

    #[test]
    fn a_tone_above_the_new_limit_is_removed() {
        let resampled = resample(&tone(16_000, 6500.0, 16_000), 16_000, 8000, usize::MAX);
        assert!(resampled[100..7900].iter().all(|x| x.abs() < 2e-3));
    }
}
