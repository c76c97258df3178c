//! Joint training of all modalities, the baseline for alternating adaptation.
//!
//! ```text
//! sample ─┬ audio ─ f_a ─ h_a ─┐
//!         ├ image ─ f_i ─ h_i ─┼ Z = Σ_m W_m h_m + b ─ one cross-entropy ─ every encoder and the head take a step
//!         └ text  ─ f_t ─ h_t ─┘   (h_m = 0 where the sample lacks the modality)
//! ```
//! The head is linear over the concatenated features of all modalities, (C, M s). W_m is its slice for modality m, and
//! a single modality is evaluated with that slice: Z_m = H_m W_mᵀ + b. With one modality, this is the training of that
//! modality alone.
//!
//! Encoders, initial values, optimizers, learning rates, batch size and length are those of the job. The head has the
//! job's optimizer and no projector. The result is a deterministic function of job and data. Nothing here depends on
//! turns, coordinators or files.

mod evaluation;
mod learner;
mod pairs;
mod training;

pub(crate) use evaluation::{Measured, evaluate};
pub(crate) use learner::{Member, Opened};
pub(crate) use training::{Training, epochs};
