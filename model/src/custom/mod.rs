//! Custom encoders: networks written with candle-nn that are trained, saved and restored like built-in encoders.
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
//! 1. Initial parameters are a function of seed, modality and parameter name, as for built-in encoders.
//! 2. If candle does not propagate a gradient to a parameter, the first step fails with an error that names it.
//! 3. The same happens if a gradient is not the derivative, unless [`Blueprint::skip_gradient_check`] was called.
//! 4. The first step also fails if the network returns different features for the same batch.
//! 5. On the CPU no bit depends on the number of threads.
//!
//! candle computes a wrong gradient for `candle_nn::Conv1d`, which invariant 3 detects. Use [`conv1d`] instead.
//!
//! In evaluation, a sample's bits may depend on the other samples of its batch: candle gives no guarantee.

mod blueprint;
mod convolution;
mod dropout;
mod encoder;
mod error;
mod gradient_check;
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
