//! Spoken digits by formant synthesis: a source (the glottis, noise) through filters (resonances of the tract), after
//! Klatt, "Software for a cascade/parallel formant synthesizer" (1980).

use super::super::exact::{Dice, cosine, exponential, sine};
use super::phonemes::{DIGITS, Sound};

/// Samples per second.
pub(in super::super) const RATE: f64 = 8000.0;

/// Samples between two settings of the filters: 5 ms.
const FRAME: usize = 40;

/// The fraction of a period of the voice in which the glottis is open.
const OPEN: f64 = 0.6;

/// What the utterances of one person have in common.
pub(in super::super) struct Speaker {
    /// Hz.
    pitch: f64,
    /// The length of the vocal tract, relative to the average. Formants are divided by it.
    tract: f64,
    /// The factor of this person's accent on each formant.
    accent: [f64; 3],
    /// The length of sounds, relative to the average.
    slowness: f64,
    /// Noise in the voice.
    breath: f64,
    /// Hz, and share of the pitch.
    vibrato: (f64, f64),
}

impl Speaker {
    /// The speaker whose stream this is.
    pub(in super::super) fn new(mut dice: Dice) -> Self {
        let size = dice.between(0.0, 1.0);
        Self {
            pitch: (230.0 - 130.0 * size) * dice.between(0.85, 1.15),
            tract: 0.84 + 0.3 * size + 0.03 * dice.bell(),
            accent: std::array::from_fn(|_| 1.0 + 0.045 * dice.bell()),
            slowness: dice.between(0.75, 1.2),
            breath: dice.between(0.01, 0.12),
            vibrato: (dice.between(4.0, 7.0), dice.between(0.0, 0.03)),
        }
    }
}

/// An utterance of `digit`, samples of no particular amplitude, between 0.15 and 0.85 s.
pub(super) fn speak(digit: usize, speaker: &Speaker, dice: &mut Dice) -> Vec<f64> {
    let mut mouth = Mouth::new(speaker, DIGITS[digit][0], dice);
    let mut samples = Vec::with_capacity(6800);
    let haste = dice.between(0.85, 1.15);
    for sound in DIGITS[digit] {
        let aim = mouth.aim(*sound, dice);
        let milliseconds = sound.milliseconds * speaker.slowness * haste * dice.between(0.8, 1.2);
        for _ in 0..(milliseconds / 5.0).round() as usize {
            mouth.frame(&aim, dice, &mut samples);
        }
    }
    let closing = Sound { voice: 0.0, noise: 0.0, ..mouth.now };
    for _ in 0..8 {
        mouth.frame(&closing, dice, &mut samples);
    }
    samples
}

/// Filters and source, with their state between samples.
struct Mouth<'a> {
    speaker: &'a Speaker,
    /// The current sound, between the last target and the next: mouths move smoothly.
    now: Sound,
    /// The first three formants, and two fixed ones above.
    cascade: [Resonator; 4],
    noise: Resonator,
    /// Of the glottis, in periods.
    phase: f64,
    /// Since the utterance began, in frames.
    frames: f64,
    pitch: f64,
}

impl<'a> Mouth<'a> {
    fn new(speaker: &'a Speaker, first: Sound, dice: &mut Dice) -> Self {
        Self {
            speaker,
            now: Sound { voice: 0.0, noise: 0.0, ..first },
            cascade: Default::default(),
            noise: Resonator::default(),
            phase: 0.0,
            frames: 0.0,
            pitch: speaker.pitch * dice.between(0.9, 1.15),
        }
    }

    /// This speaker's target for a sound, with random variation.
    fn aim(&self, sound: Sound, dice: &mut Dice) -> Sound {
        let mut aim = sound;
        for (formant, accent) in aim.formants.iter_mut().zip(self.speaker.accent) {
            *formant = (*formant * accent / self.speaker.tract * (1.0 + 0.03 * dice.bell())).clamp(180.0, 3750.0);
        }
        aim.noise_centre = (aim.noise_centre * (1.0 + 0.05 * dice.bell())).min(3800.0);
        aim
    }

    /// Moves towards `aim` and appends 5 ms of sound.
    fn frame(&mut self, aim: &Sound, dice: &mut Dice, samples: &mut Vec<f64>) {
        self.approach(aim);
        let time = self.frames * FRAME as f64 / RATE;
        self.frames += 1.0;
        let (rate, depth) = self.speaker.vibrato;
        let falling = 1.08 - 0.3 * time;
        let step = self.pitch * falling * (1.0 + depth * sine(rate * time) + 0.01 * dice.bell()) / RATE;
        for _ in 0..FRAME {
            let hiss = dice.bell();
            self.phase += step;
            self.phase -= self.phase.floor();
            let source = self.now.voice * (glottis(self.phase) + self.speaker.breath * hiss);
            // Aspiration: part of the noise is made below the tract and shaped by all of it.
            let mut sound = source + 0.12 * self.now.noise * hiss;
            for resonator in &mut self.cascade {
                sound = resonator.filter(sound);
            }
            samples.push(sound + 0.9 * self.now.noise * self.noise.filter(hiss));
        }
    }

    fn approach(&mut self, aim: &Sound) {
        let move_to = |now: &mut f64, aim: f64, share: f64| *now += share * (aim - *now);
        for (now, aim) in self.now.formants.iter_mut().zip(aim.formants) {
            move_to(now, aim, 0.22);
        }
        move_to(&mut self.now.voice, aim.voice, 0.4);
        move_to(&mut self.now.noise, aim.noise, 0.5);
        move_to(&mut self.now.noise_centre, aim.noise_centre, 0.5);
        let widths = [70.0, 100.0, 150.0];
        for ((resonator, centre), width) in self.cascade.iter_mut().zip(self.now.formants).zip(widths) {
            resonator.set(centre, width);
        }
        self.cascade[3].set((3400.0 / self.speaker.tract).min(3800.0), 250.0);
        self.noise.set(self.now.noise_centre, 700.0);
    }
}

/// The flow's derivative over one period: it rises while the glottis is open, falls, and breaks off as it closes
/// (Klatt & Klatt 1990, KLGLOTT88).
fn glottis(phase: f64) -> f64 {
    let open = phase / OPEN;
    if open < 1.0 { open * (2.0 - 3.0 * open) } else { 0.0 }
}

/// y_t = a x_t + b y_{t−1} + c y_{t−2}: one resonance with gain 1 at 0 Hz.
#[derive(Default)]
struct Resonator {
    a: f64,
    b: f64,
    c: f64,
    last: f64,
    before: f64,
}

impl Resonator {
    /// Moves the resonance to `centre`, `width` wide (Hz), and keeps its ringing.
    fn set(&mut self, centre: f64, width: f64) {
        let radius = exponential(-std::f64::consts::PI * width / RATE);
        self.c = -radius * radius;
        self.b = 2.0 * radius * cosine(centre / RATE);
        self.a = 1.0 - self.b - self.c;
    }

    fn filter(&mut self, input: f64) -> f64 {
        let output = self.a * input + self.b * self.last + self.c * self.before;
        self.before = self.last;
        self.last = output;
        output
    }
}
