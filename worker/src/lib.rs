//! The worker: trains the encoder of one modality, and sends head gradients to the coordinator.
//!
//! ```text
//! session (socket, async) ⇄ engine (its own thread) ─ trainer ─┬─ antiphon-data   Parquet or generated rows → batches
//!                                                              └─ antiphon-model  batches → features, gradients, steps
//! ```

mod assigned;
pub mod checkpoint;
mod config;
mod dial;
mod engine;
mod failure;
mod name;
mod session;
mod stores;
pub mod trainer;
mod watch;

pub use config::{Config, WorkerArgs};
pub use dial::WorkerError;
pub use session::run;
pub use stores::stores;
