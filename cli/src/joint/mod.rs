//! Training all modalities at once, the way that alternating adaptation is measured against.
//!
//! ```text
//! sample ─┬ audio ─ f_a ─ h_a ─┐
//!         ├ image ─ f_i ─ h_i ─┼ Z = Σ_m W_m h_m + b ─ one cross-entropy ─ every encoder and the head take a step
//!         └ text  ─ f_t ─ h_t ─┘   (h_m = 0 where the sample lacks the modality)
//! ```
//! One linear head over the features of all modalities side by side, (C, M s): W_m is its slice for modality m, and what
//! the modality knows by itself is read through that slice, Z_m = H_m W_mᵀ + b. Of one modality it is that modality's
//! training alone.
//!
//! Encoders, their first values, optimizers and learning rates are those of the job, and so are batch size and length; the
//! head has the job's optimizer and no projector. The result is a function of job and data, to the last bit. Nothing here
//! knows of turns, coordinators or files.

mod evaluation;
mod learner;
mod pairs;
mod training;

pub(crate) use evaluation::{Measured, evaluate};
pub(crate) use learner::{Member, Opened};
pub(crate) use training::{Training, epochs};
