//! Power spectra in mel bands.
//!
//! The scale is that of HTK, mel(f) = 2595 log10(1 + f / 700), from 0 Hz to half the sample rate; bands are triangles
//! of height 1 between neighbouring centres. A band that is too narrow for any bin uses the bin nearest to its centre.

use std::f64::consts::TAU;
use std::fmt;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use super::super::error::SampleError;

/// The smallest power. Lower values are raised to it before the logarithm.
const FLOOR: f32 = 1e-10;

/// The window, its transform and the mel bands.
pub(super) struct MelBands {
    transform: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    /// The first bin of each band, and the weights starting there.
    bands: Vec<(usize, Vec<f32>)>,
}

impl fmt::Debug for MelBands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MelBands {{ window: {}, mels: {} }}", self.window(), self.len())
    }
}

impl MelBands {
    pub(super) fn new(rate: u32, window: usize, mels: usize) -> Self {
        let hann = (0..window).map(|i| (0.5 - 0.5 * (TAU * i as f64 / window as f64).cos()) as f32).collect();
        Self { transform: RealFftPlanner::new().plan_fft_forward(window), hann, bands: bands(rate, window, mels) }
    }

    pub(super) fn len(&self) -> usize {
        self.bands.len()
    }

    pub(super) fn window(&self) -> usize {
        self.hann.len()
    }

    /// (mels, frames) natural logarithms, row-major, of the first `frames` windows, `hop` apart.
    pub(super) fn spectrogram(&self, samples: &[f32], hop: usize, frames: usize) -> Result<Vec<f32>, SampleError> {
        let mut values = vec![0.0; self.len() * frames];
        let mut windowed = self.transform.make_input_vec();
        let mut spectrum = self.transform.make_output_vec();
        let mut scratch = self.transform.make_scratch_vec();
        for frame in 0..frames {
            let here = &samples[frame * hop..frame * hop + self.window()];
            for ((to, sample), weight) in windowed.iter_mut().zip(here).zip(&self.hann) {
                *to = sample * weight;
            }
            self.transform.process_with_scratch(&mut windowed, &mut spectrum, &mut scratch).map_err(|error| {
                SampleError::new(format!("its spectrum cannot be computed: {error}"), "change `window`")
            })?;
            for (band, (first, weights)) in self.bands.iter().enumerate() {
                let power: f32 = weights.iter().zip(&spectrum[*first..]).map(|(weight, x)| weight * x.norm_sqr()).sum();
                values[band * frames + frame] = power.max(FLOOR).ln();
            }
        }
        Ok(values)
    }
}

fn bands(rate: u32, window: usize, mels: usize) -> Vec<(usize, Vec<f32>)> {
    let to_mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let to_hertz = |mel: f64| 700.0 * (10_f64.powf(mel / 2595.0) - 1.0);
    let bin = f64::from(rate) / window as f64;
    let highest = to_mel(f64::from(rate) / 2.0);
    let edge = |i: usize| to_hertz(highest * i as f64 / (mels + 1) as f64);
    (0..mels).map(|band| triangle(edge(band), edge(band + 1), edge(band + 2), bin, window / 2)).collect()
}

/// The weights of the bins between `low` and `high`, 1 at `centre`; all in Hz, bins `bin` Hz apart, the last being
/// `last`.
fn triangle(low: f64, centre: f64, high: f64, bin: f64, last: usize) -> (usize, Vec<f32>) {
    let first = (low / bin).floor() as usize + 1;
    let end = ((high / bin).ceil() as usize).min(last + 1);
    let weight = |i: usize| {
        let hertz = i as f64 * bin;
        let side = if hertz <= centre { (hertz - low) / (centre - low) } else { (high - hertz) / (high - centre) };
        side.max(0.0) as f32
    };
    let weights: Vec<f32> = (first..end).map(weight).collect();
    if weights.iter().any(|weight| *weight > 0.0) {
        (first, weights)
    } else {
        (((centre / bin).round() as usize).min(last), vec![1.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_band_hears_something_and_inner_bins_weigh_1_in_all() {
        for (rate, window, mels) in [(8000, 256, 64), (16_000, 512, 40), (44_100, 16, 128)] {
            let all = bands(rate, window, mels);
            for (first, weights) in &all {
                assert!(weights.iter().sum::<f32>() > 0.0);
                assert!(first + weights.len() <= window / 2 + 1, "a band reaches past the last bin");
            }
        }
        let all = bands(16_000, 1024, 10);
        for bin in 40..390_usize {
            let sum: f32 = all.iter().filter_map(|(first, weights)| weights.get(bin.checked_sub(*first)?)).sum();
            assert!((sum - 1.0).abs() < 1e-4 || bin as f64 * 15.625 < 174.0, "bin {bin} weighs {sum}");
        }
    }
}
