//! The coordinator: owns the shared head of every job and hands out turns.
//!
//! ```text
//! server    listens; gRPC services, health, reflection; shuts down in order
//!   services/jobs      people: submit, watch, stop           services/training + session   workers: one stream each
//!        └──────────▶ coordinator (the jobs) ◀─────────▶ pool (the workers)
//!                          │ seam
//!                          ▼
//!                     job: one task per job, which alone owns its head ──▶ events; checkpoints (antiphon-store)
//! ```

mod clock;
pub mod config;
pub mod coordinator;
pub mod events;
pub mod head_threads;
pub mod job;
pub mod journal;
pub mod pool;
pub mod seam;
pub mod server;
pub mod services;
pub mod session;
