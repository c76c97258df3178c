//! Building blocks of encoders: operators with a backward of their own, and layers that hold parameters.
//!
//! ```text
//! convolution ─ norm_relu_pool     images and spectrograms       linear, dropout     everywhere
//! embedding ─ layer_norm ─ attention ─ segment_mean   texts, packed: no row is padding
//! ```
//!
//! Invariants:
//! 1. Bits never depend on the number of threads: work is cut into pieces of fixed size, sums have a fixed order.
//! 2. In evaluation a sample's bits never depend on its batch: products are taken per sample, or over blocks of a fixed
//!    number of rows.
//! 3. Every operator's backward agrees with finite differences in f64.
//!
//! Operators run in main memory (`Device::Cpu`); nothing here knows of modalities, heads or turns.

pub(crate) mod attention;
pub(crate) mod convolution;
pub(crate) mod dropout;
pub(crate) mod embedding;
pub(crate) mod grid_mean;
pub(crate) mod layer;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod norm_relu_pool;
pub(crate) mod number;
mod parallel;
pub(crate) mod parameters;
mod product;
pub(crate) mod segment_mean;

#[cfg(test)]
pub(crate) mod check;
