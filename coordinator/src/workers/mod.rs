//! The workers: [`pool`] holds the registered workers and their jobs; [`session`] is one worker's stream.
//!
//! Owns every worker's registration and state. It does not know what a job does with its workers.

pub mod pool;
pub mod session;
