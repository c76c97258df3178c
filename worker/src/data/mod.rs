//! Data of one modality.

pub mod synth;
