//! The worker: trains the encoder of one modality, and lends its head gradients to the coordinator.
//!
//! ```text
//! session (socket, async) ⇄ engine (its own thread) ─ trainer ─┬─ data      Parquet or generated rows → batches
//!                                                              ├─ encoder   batches → features, gradients
//!                                                              ├─ weights   a file → the parameters it begins from
//!                                                              └─ optimizer gradients → parameters
//! ```

#[allow(unsafe_code, reason = "an allocator is unsafe to implement")]
pub mod allocator;
pub mod checkpoint;
mod config;
pub mod data;
pub mod device;
mod dial;
pub mod encoder;
mod engine;
mod failure;
mod name;
pub mod nn;
mod numerics;
pub mod optimizer;
mod session;
pub mod trainer;
mod watch;
pub mod weights;

pub use config::{Config, WorkerArgs};
pub use dial::WorkerError;
pub use session::run;
