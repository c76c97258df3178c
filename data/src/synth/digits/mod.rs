//! Digits, written, spoken and described.
//!
//! Each modality is imperfect in its own way, so that fusion pays off: some images are unreadable, some sounds drown in
//! babble, and texts often leave two or three digits possible. Each modality draws its hard samples independently.
//!
//! The fractions are chosen so that joint training favours some modalities, which `antiphon bench joint
//! examples/spoken-digits.yaml` measures. Images and sounds identify most digits within an epoch or two, and end near
//! what they reach alone. Texts take many steps to learn, and by then the other modalities have explained most samples.
//! So the text encoder, which reaches some 60 % alone or in turns, ends near 40 %. `cli/tests/cli/bench.rs` checks
//! this.

pub(super) mod audio;
pub(super) mod image;
mod phonemes;
mod strokes;
pub(super) mod text;
pub(super) mod voice;
