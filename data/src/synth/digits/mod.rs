//! Digits, written, spoken and described.
//!
//! Each modality is imperfect in its own way, so that fusing them pays: a share of the images is spoilt beyond reading, some
//! sounds drown in babble, and texts often leave two or three digits possible. Which samples are hard is drawn for each
//! modality on its own.
//!
//! The shares are set so that joint training plays favourites, which `antiphon bench joint examples/spoken-digits.yaml`
//! measures. Images and sounds tell most digits within an epoch or two and end near what they reach alone; texts take many
//! steps to learn, and by then the others have explained most samples. So the text encoder, which reaches some 60 %
//! alone or in turns, ends near 40 %. `cli/tests/cli/bench.rs` holds that it stays so.

pub(super) mod audio;
pub(super) mod image;
mod phonemes;
mod strokes;
pub(super) mod text;
pub(super) mod voice;
