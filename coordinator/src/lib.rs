//! The coordinator: owns the shared head of every job and grants turns.
//!
//! Rooms, each of which imports only those below it:
//!
//! ```text
//! edge        listens; gRPC services for clients (submit, watch, stop) and workers (a stream each); orderly shutdown
//! registry    all jobs: submission, recovery, retention, shutdown
//! config      the settings of a coordinator
//! workers     the pool, and one session per worker
//! job         one task per job, which alone owns its head
//! events      the events of a job, for any number of watchers
//! journal     what the next coordinator needs: jobs, events, ends, the term
//! clock · head_threads · stall
//! job::contract   what passes between a job's task and the rooms around it; `job` and `workers` share nothing else
//! ```

mod clock;
pub mod config;
pub mod edge;
pub mod events;
pub mod head_threads;
pub mod job;
pub mod journal;
pub mod registry;
mod stall;
pub mod workers;
