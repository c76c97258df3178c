//! Digits, written, spoken and described.
//!
//! Each modality is imperfect in its own way, so that fusing them pays: images are easy to learn but a share of them is
//! spoilt beyond reading (joint training would lean on them); sounds take longer to learn and some drown in babble;
//! texts often leave two or three digits possible. Which samples are hard is drawn for each modality on its own.

pub(super) mod audio;
pub(super) mod image;
mod phonemes;
mod strokes;
pub(super) mod text;
pub(super) mod voice;
