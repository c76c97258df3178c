//! Building blocks of encoders: operators with their backward passes, and layers that hold parameters.
//!
//! ```text
//! convolution ─ batch_norm ─ pooling                       images and spectrograms, (B, H, W, C)
//! embedding, sequence ─ layer_norm ─ attention ─ gelu ─ segment_mean     sequences, packed: no row is padding
//! linear, dropout, cast                                    everywhere
//!         │                    all of them record their backward pass on a tape: value
//! walk ─ product ─ tile ─ lanes                            products of matrices; vector, parallel, buffer: loops
//! update                                                   what optimizers do to parameters, in place
//! ```
//!
//! Invariants:
//! 1. Bits never depend on the number of threads: sums have a fixed order, and no sum spans the blocks that threads
//!    share.
//! 2. In evaluation, a sample's bits never depend on its batch.
//! 3. Every operator's backward agrees with finite differences in f64.
//!
//! Operators run in main memory, or on an NVIDIA GPU (`cuda`, with its own invariants) if the tensors are there.
//! Nothing here knows modalities, heads or turns.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod batch_norm;
#[allow(unsafe_code, reason = "memory is handed out before it is written")]
mod buffer;
pub(crate) mod cast;
pub(crate) mod convolution;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod dispatch;
pub(crate) mod dropout;
pub(crate) mod embedding;
pub(crate) mod gelu;
#[allow(unsafe_code, reason = "vector units are reached through intrinsics and pointers")]
mod lanes;
pub(crate) mod layer;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod number;
mod parallel;
pub(crate) mod parameters;
pub(crate) mod pooling;
mod product;
pub(crate) mod segment_mean;
pub(crate) mod sequence;
#[allow(unsafe_code, reason = "the innermost loops use pointers, which its two entry points have checked")]
mod tile;
pub(crate) mod update;
pub(crate) mod value;
mod vector;
mod walk;

#[cfg(test)]
pub(crate) mod check;
