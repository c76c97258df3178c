//! Which jobs there are. [`coordinator`] holds them; [`submission`] takes them in, [`recovery`] finds those of the coordinator before,
//! [`retention`] forgets the oldest that are over, [`shutdown`] ends them.
//!
//! Knows jobs and workers, and nothing of how people and workers reach it.

pub mod coordinator;
mod recovery;
mod retention;
mod shutdown;
pub mod submission;

pub use coordinator::Coordinator;
pub use submission::Submission;
