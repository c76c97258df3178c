//! The worker: trains the encoder of one modality, and lends its head gradients to the coordinator.

pub mod data;
pub mod encoder;
pub mod nn;
pub mod optimizer;
