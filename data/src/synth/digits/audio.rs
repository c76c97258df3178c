//! Recordings of spoken digits: one voice in the foreground, other voices and noise in the background.

use bytes::Bytes;

use super::super::exact::{Dice, decibels};
use super::voice::{RATE, Speaker, speak};

/// Speakers of a split.
const SPEAKERS: usize = 40;

/// Longest recording: 1 s.
const LONGEST: usize = 8000;

/// The fraction of recordings in which the background is at least as loud as the foreground.
const DROWNED: f64 = 0.15;

/// A WAV file of `digit`: 8 kHz, mono, 16 bit, 0.5 to 1 s. `speaker` returns the speakers of the split by number.
pub(in super::super) fn wav(digit: usize, speaker: &dyn Fn(u64) -> Speaker, dice: &mut Dice) -> Bytes {
    let voice = speak(digit, &speaker(dice.below(SPEAKERS) as u64), dice);
    let length = (voice.len() + 400 + dice.below(1600)).clamp(4000, LONGEST);
    let mut recording = vec![0.0; length];
    let start = dice.below(length.saturating_sub(voice.len()) + 1);
    add(&mut recording, &voice, start, 1.0 / level(&voice));

    let drowned = dice.chance(DROWNED);
    let babble = if drowned { dice.between(-9.0, -1.0) } else { dice.between(6.0, 24.0) };
    let mut crowd = vec![0.0; length];
    for _ in 0..2 {
        let other = speak(dice.below(10), &speaker(dice.below(SPEAKERS) as u64), dice);
        let start = dice.below(length.saturating_sub(other.len() / 2) + 1);
        add(&mut crowd, &other, start, 1.0 / level(&other));
    }
    add(&mut recording, &crowd, 0, decibels(-babble) / level(&crowd));

    let noise = decibels(-if drowned { dice.between(-3.0, 6.0) } else { dice.between(8.0, 26.0) });
    for sample in &mut recording {
        *sample += noise * dice.bell();
    }
    encode(&recording, dice.between(0.4, 0.9))
}

/// Adds `sound` starting at sample `start`, as far as it fits.
fn add(recording: &mut [f64], sound: &[f64], start: usize, gain: f64) {
    for (sample, addend) in recording[start..].iter_mut().zip(sound) {
        *sample += gain * addend;
    }
}

/// The root mean square, never 0.
fn level(samples: &[f64]) -> f64 {
    let power = samples.iter().map(|sample| sample * sample).sum::<f64>() / samples.len().max(1) as f64;
    power.sqrt().max(1e-9)
}

/// A RIFF file with the peak at `peak` of full scale.
fn encode(samples: &[f64], peak: f64) -> Bytes {
    let rate = RATE as u32;
    let size = 2 * samples.len() as u32;
    let mut file = Vec::with_capacity(44 + 2 * samples.len());
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + size).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    // PCM, one channel, then bytes per second, bytes per frame, bits per sample.
    file.extend_from_slice(&[1, 0, 1, 0]);
    file.extend_from_slice(&rate.to_le_bytes());
    file.extend_from_slice(&(2 * rate).to_le_bytes());
    file.extend_from_slice(&[2, 0, 16, 0]);
    file.extend_from_slice(b"data");
    file.extend_from_slice(&size.to_le_bytes());
    let loudest = samples.iter().fold(1e-9, |most: f64, sample| most.max(sample.abs()));
    let scale = peak * 32767.0 / loudest;
    file.extend(samples.iter().flat_map(|sample| ((sample * scale).round() as i16).to_le_bytes()));
    file.into()
}
