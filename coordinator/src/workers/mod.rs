//! The workers: [`pool`] has which of them are registered and which job has which; [`session`] is one worker's stream.
//!
//! Owns every worker's registration and state. Does not know what a job does with its workers.

pub mod pool;
pub mod session;
