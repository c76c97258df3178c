//! The registry of jobs. `coordinator` holds them, with an `entry` each; `submission` adds jobs, `recovery` resumes
//! those of the previous coordinator, `retention` removes the oldest finished ones, `shutdown` stops them.
//!
//! Knows jobs and workers, but not how people and workers connect.

pub mod coordinator;
pub mod entry;
mod recovery;
mod retention;
mod search;
mod shutdown;
pub mod submission;

pub use coordinator::Coordinator;
pub use submission::Submission;
