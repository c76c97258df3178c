//! What a mouth does to say a digit: formants, voice and noise over time, after the tables of Peterson & Barney (1952)
//! and Klatt (1980), rounded, below 4 kHz.

/// A section of an utterance with one target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sound {
    /// Resonances of a tract of common length, Hz.
    pub(super) formants: [f64; 3],
    /// Amplitude of the voice, 0 to 1.
    pub(super) voice: f64,
    /// Amplitude of the noise from a constriction of the mouth, 0 to 1.
    pub(super) noise: f64,
    /// Where that noise is strongest, Hz.
    pub(super) noise_centre: f64,
    /// Its length at common speed.
    pub(super) milliseconds: f64,
}

const fn vowel(formants: [f64; 3], milliseconds: f64) -> Sound {
    Sound { formants, voice: 1.0, noise: 0.0, noise_centre: 3000.0, milliseconds }
}

const fn weak(formants: [f64; 3], voice: f64, milliseconds: f64) -> Sound {
    Sound { formants, voice, noise: 0.0, noise_centre: 3000.0, milliseconds }
}

const fn hiss(formants: [f64; 3], voice: f64, noise: f64, noise_centre: f64, milliseconds: f64) -> Sound {
    Sound { formants, voice, noise, noise_centre, milliseconds }
}

const Z: Sound = hiss([300.0, 1600.0, 2500.0], 0.35, 0.35, 3500.0, 80.0);
const IH: Sound = vowel([390.0, 1990.0, 2550.0], 80.0);
const R: Sound = weak([330.0, 1200.0, 1600.0], 0.75, 70.0);
const OW: [Sound; 2] = [vowel([520.0, 980.0, 2400.0], 90.0), vowel([380.0, 820.0, 2300.0], 90.0)];
const W: Sound = weak([300.0, 640.0, 2200.0], 0.7, 70.0);
const AH: Sound = vowel([640.0, 1190.0, 2390.0], 120.0);
const N: Sound = weak([270.0, 1350.0, 2300.0], 0.4, 90.0);
const CLOSED: Sound = weak([300.0, 1600.0, 2500.0], 0.0, 50.0);
const T: Sound = hiss([350.0, 1750.0, 2600.0], 0.0, 0.7, 3300.0, 35.0);
const UW: Sound = vowel([310.0, 900.0, 2250.0], 190.0);
const TH: Sound = hiss([320.0, 1400.0, 2500.0], 0.0, 0.14, 2900.0, 90.0);
const IY: Sound = vowel([280.0, 2250.0, 2900.0], 190.0);
const F: Sound = hiss([340.0, 1100.0, 2100.0], 0.0, 0.17, 2300.0, 100.0);
const AO: Sound = vowel([570.0, 850.0, 2410.0], 150.0);
const AY: [Sound; 2] = [vowel([730.0, 1150.0, 2440.0], 110.0), vowel([360.0, 2000.0, 2600.0], 90.0)];
const V: Sound = hiss([300.0, 1100.0, 2200.0], 0.4, 0.1, 2400.0, 70.0);
const S: Sound = hiss([320.0, 1600.0, 2600.0], 0.0, 0.5, 3700.0, 110.0);
const K: Sound = hiss([320.0, 1900.0, 2500.0], 0.0, 0.6, 1900.0, 35.0);
const EH: Sound = vowel([530.0, 1840.0, 2480.0], 100.0);
const EY: [Sound; 2] = [vowel([480.0, 1900.0, 2500.0], 100.0), vowel([330.0, 2150.0, 2700.0], 90.0)];

/// The sounds of each digit in English.
pub(super) const DIGITS: [&[Sound]; 10] = [
    &[Z, IH, R, OW[0], OW[1]],
    &[W, AH, N],
    &[CLOSED, T, UW],
    &[TH, R, IY],
    &[F, AO, R],
    &[F, AY[0], AY[1], V],
    &[S, IH, CLOSED, K, S],
    &[S, EH, V, AH, N],
    &[EY[0], EY[1], CLOSED, T],
    &[N, AY[0], AY[1], N],
];
