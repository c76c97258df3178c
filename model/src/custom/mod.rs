//! Custom encoders: networks written with candle-nn, trained, saved and restored as the built-in encoders are.
//!
//! ```text
//! Encoders ─ kind ─▶ build(Blueprint, VarBuilder) ─▶ network ─┐
//!                          │              └─ variables: named, seeded and kept by this crate
//!                          └─ options of the job                └─▶ Custom: an Encoder
//!                                  forward  batch → network → mean over frames → adapter → H
//!                                  backward dH → candle's own backward → a gradient for every parameter
//! ```
//!
//! Invariants:
//! 1. Parameters at the start are a function of seed, modality and parameter name, as those of built-in encoders.
//! 2. A network whose gradient candle cuts is an error at the first step, which names the parameter.
//! 3. A network that gives other features for the same batch is an error at the first step.
//! 4. On the CPU no bit depends on the number of threads.
//!
//! What candle gets wrong: the gradient of `candle_nn::Conv1d`. Use [`conv1d`].
//!
//! What candle leaves to the network: in evaluation a sample's bits may depend on the other samples of its batch.

mod blueprint;
mod convolution;
mod dropout;
mod encoder;
mod error;
mod options;
mod registry;
#[cfg(test)]
mod tests;
mod variables;

pub use blueprint::Blueprint;
pub use convolution::{Conv1d, conv1d};
pub use dropout::Dropout;
pub use encoder::Setting;
pub use error::BuildError;
pub use options::{OptionError, Options};
pub use registry::Encoders;
