//! The operators on NVIDIA GPUs: the same mathematics as in main memory, forward and backward.
//!
//! ```text
//! linear ─ convolution (dnn) ─ batch_norm ─ pooling ─ layer_norm ─ attention ─ rows ─ elementwise ─ optimizer
//!         │                    each enqueues kernels (*.cu) and products, and records a step on the tape
//! columns ─ product ─ launch ─ memory                sums over rows; cuBLAS; kernels and inputs; the GPU's memory
//! staging                                            transfer of batches to the GPU
//! head                                               the worker's half of a step of the shared head
//! ```
//!
//! Operators check their inputs before they call functions here (`on_cuda!`). Everything runs in the order in which it
//! was enqueued, on one stream.
//!
//! Invariants:
//! 1. The same input gives the same bits on the same GPU: no kernel adds with atomics, every sum has a fixed order,
//!    and only deterministic algorithms of libraries are used. Bits differ between kinds of GPUs and from main memory.
//! 2. Only copies to main memory wait for the GPU: contributions to the head, the gradient's norm, committed
//!    statistics, evaluated features.
//! 3. Memory beside operands and results is bounded: patches and scores are computed for some samples at a time.
//!
//! The kernels are compiled once for each type of number, by `build.rs`. Activations may be in bf16. Everything is
//! still computed and summed in f32, and parameters, their gradients and statistics are in f32 (`Card::computed`).

pub(crate) mod attention;
pub(crate) mod batch_norm;
mod columns;
pub(crate) mod convolution;
mod convolution_shape;
#[cfg(feature = "cudnn")]
#[allow(unsafe_code, reason = "cuDNN reads and writes through addresses")]
mod dnn;
pub(crate) mod elementwise;
pub(crate) mod head;
#[allow(unsafe_code, reason = "kernels read and write through addresses; see its safety")]
mod launch;
pub(crate) mod layer_norm;
pub(crate) mod linear;
#[allow(unsafe_code, reason = "the driver reads and writes through addresses")]
mod memory;
pub(crate) mod optimizer;
pub(crate) mod pooling;
#[allow(unsafe_code, reason = "cuBLAS reads and writes through addresses")]
mod product;
pub(crate) mod rows;
#[allow(unsafe_code, reason = "memory is handed out before it is written")]
pub(crate) mod staging;

pub(crate) use launch::{count, multiplies_bf16, open};
pub(crate) use memory::{forget_peak, give_back, peak};

#[cfg(test)]
mod tests;
