//! Models of one modality: encoders and their operators, pretrained weights, optimizers and the devices they run on.
//!
//! ```text
//! weights   a file → the parameters that training starts from ─┐
//! encoder   batches → features H; dH → gradients ──────────────┼─ nn  operators in main memory, and on NVIDIA GPUs
//! optimizer gradients → parameters ────────────────────────────┤
//! custom    encoders that a program registers, written with candle-nn
//! head      H under the shared head → D, G, dH ────────────────┘
//! device    where all of it runs     allocator  its memory     numerics  how this machine rounds
//! ```
//!
//! This crate knows no turn, job or connection.

#[allow(unsafe_code, reason = "an allocator is unsafe to implement")]
pub mod allocator;
pub mod custom;
pub mod device;
pub mod encoder;
pub mod head;
mod nn;
pub mod numerics;
pub mod optimizer;
pub mod weights;
