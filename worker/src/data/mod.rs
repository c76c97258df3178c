//! Data of one modality: from object storage to batches of numbers.

pub mod row;
pub mod synth;
