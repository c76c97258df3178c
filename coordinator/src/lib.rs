//! The coordinator: owns the shared head of every job and grants turns.
//!
//! Rooms, each of which imports only those below it:
//!
//! ```text
//! edge        listens; gRPC services for people (submit, watch, stop) and workers (one stream each); shuts down in order
//! registry    which jobs there are: submission, recovery, retention, shutdown
//! config      what a coordinator is told when it starts
//! workers     the pool, and one session per worker
//! job         one task per job, which alone owns its head; `job::contract` is what the rooms above it know of a job
//! events      the events of a job, for any number of watchers
//! journal     what the next coordinator needs: jobs, events, ends, the term
//! clock · head_threads · stall
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
