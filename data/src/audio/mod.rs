//! WAV, FLAC and MP3 files to log-mel spectrograms.
//!
//! ```text
//! bytes ─ decode (mono) ─ resample ─ truncate or pad to `seconds` ─ Hann windows, |FFT|² ─ mel bands ─ ln(max(x, 1e-10)) ─ standardise
//! ```
//! Standardisation is per mel band, by the training split's mean and deviation over the frames that begin within their
//! recording. Frames that begin after its end are 0, the mean: the level of silence would be an extreme value without
//! meaning.

mod decode;
mod mel;
mod resample;

use antiphon_core::rng;

use super::error::{SampleError, guarded};
use mel::MelBands;

pub(super) use decode::is_audio;

/// A spectrogram before standardisation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spectrogram {
    /// (mels, frames), row-major.
    pub(super) values: Vec<f32>,
    /// The number of frames that begin within the recording. The first frame always counts.
    pub(super) heard: usize,
}

/// The properties of a recording that `data inspect` shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Survey {
    /// WAV, FLAC or MP3.
    pub(super) format: &'static str,
    /// Hz.
    pub(super) rate: u32,
    /// The length of the decoded part, in seconds.
    pub(super) seconds: f64,
    /// Largest absolute sample, of the mean of all channels; 1 is full scale.
    pub(super) peak: f32,
}

/// Decodes the first `seconds` of a file and returns its properties.
pub(super) fn survey(bytes: &[u8], seconds: f64) -> Result<Survey, SampleError> {
    let recording = guarded(|| decode::decode(bytes, seconds))?;
    Ok(Survey {
        format: decode::container(bytes).unwrap_or_default(),
        rate: recording.rate,
        seconds: recording.samples.len() as f64 / f64::from(recording.rate),
        peak: recording.samples.iter().fold(0.0, |peak, sample| peak.max(sample.abs())),
    })
}

/// Turns a recording into a spectrogram.
#[derive(Debug)]
pub(super) struct Listener {
    rate: u32,
    samples: usize,
    hop: usize,
    bands: MelBands,
}

impl Listener {
    /// For `seconds` at `rate` Hz, with windows of `window` samples, `hop` apart, in `mels` bands.
    pub(super) fn new(rate: u32, seconds: f64, mels: u32, window: u32, hop: u32) -> Self {
        let samples = ((seconds * f64::from(rate)).round() as usize).max(1);
        Self { rate, samples, hop: hop.max(1) as usize, bands: MelBands::new(rate, window as usize, mels as usize) }
    }

    /// Rows of a spectrogram.
    pub(super) fn mels(&self) -> usize {
        self.bands.len()
    }

    /// Columns of a spectrogram: the number of windows that fit, at least 1.
    pub(super) fn frames(&self) -> usize {
        1 + self.samples.saturating_sub(self.bands.window()) / self.hop
    }

    /// A file's spectrogram.
    pub(super) fn hear(&self, bytes: &[u8]) -> Result<Spectrogram, SampleError> {
        let seconds = self.samples as f64 / f64::from(self.rate);
        let recording = guarded(|| decode::decode(bytes, seconds))?;
        let mut samples = resample::resample(&recording.samples, recording.rate, self.rate, self.samples);
        let heard = samples.len().div_ceil(self.hop).clamp(1, self.frames());
        samples.resize(self.samples.max(self.bands.window()), 0.0);
        Ok(Spectrogram { values: self.bands.spectrogram(&samples, self.hop, self.frames())?, heard })
    }
}

/// The mel bands of fixed noise. A numeric fingerprint includes them, because their bits depend on the
/// processor's vector units.
pub fn noise_spectrogram() -> Result<Vec<f32>, SampleError> {
    let bands = MelBands::new(8000, 256, 16);
    let mut stream = rng::stream(0, &["noise".into()]);
    let samples: Vec<f32> = (0..2 * bands.window()).map(|_| rng::normal(&mut stream) as f32).collect();
    bands.spectrogram(&samples, bands.window(), 2)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A 16-bit mono WAV.
    pub(in super::super) fn wav(rate: u32, samples: &[f32]) -> Vec<u8> {
        let size = samples.len() as u32 * 2;
        let mut bytes = [b"RIFF".as_slice(), &(36 + size).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
        bytes.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
        bytes.extend([rate.to_le_bytes(), (rate * 2).to_le_bytes()].concat());
        bytes.extend([2_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
        bytes.extend([b"data".as_slice(), &size.to_le_bytes()].concat());
        bytes.extend(samples.iter().flat_map(|x| ((x * 32767.0) as i16).to_le_bytes()));
        bytes
    }

    fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<f32> {
        let samples = (seconds * f64::from(rate)) as usize;
        (0..samples).map(|i| 0.5 * (std::f64::consts::TAU * hertz * i as f64 / f64::from(rate)).sin() as f32).collect()
    }

    fn loudest(spectrogram: &Spectrogram, frames: usize) -> usize {
        let rows = spectrogram.values.chunks(frames).map(|row| row[1]).enumerate();
        rows.max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are bands").0
    }

    #[test]
    fn a_tone_is_in_its_band_at_any_sample_rate() {
        let listener = Listener::new(8000, 0.5, 40, 256, 128);
        let band = |rate, hertz| {
            let heard = listener.hear(&wav(rate, &tone(rate, hertz, 0.5))).expect("a good recording");
            loudest(&heard, listener.frames())
        };
        for hertz in [300.0, 1000.0, 3000.0] {
            assert_eq!(band(8000, hertz), band(44_100, hertz), "{hertz} Hz");
        }
        assert!(band(8000, 300.0) < band(8000, 1000.0) && band(8000, 1000.0) < band(8000, 3000.0));
    }

    #[test]
    fn short_recordings_are_padded_and_long_ones_cut() {
        let listener = Listener::new(8000, 0.5, 20, 256, 128);
        assert_eq!(listener.frames(), 1 + (4000 - 256) / 128);
        for (seconds, heard) in [(0.01, 1), (0.1, 7), (2.0, listener.frames())] {
            let spectrogram = listener.hear(&wav(8000, &tone(8000, 500.0, seconds))).expect("a good recording");
            assert_eq!(spectrogram.values.len(), 20 * listener.frames());
            assert_eq!(spectrogram.heard, heard, "{seconds} s");
        }
    }

    #[test]
    fn no_cut_of_a_file_panics_and_none_passes_for_the_whole() {
        let listener = Listener::new(8000, 0.05, 8, 64, 32);
        let whole = wav(8000, &tone(8000, 500.0, 0.04));
        for length in 0..whole.len() {
            assert!(listener.hear(&whole[..length]).is_err(), "{length} of {} bytes were taken", whole.len());
        }
        for at in 0..44 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                drop(listener.hear(&changed));
            }
        }
    }
}
