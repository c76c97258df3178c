//! Which jobs there are. `coordinator` has them, an `entry` each; `submission` adds them, `recovery` resumes
//! those of the coordinator before, `retention` forgets the oldest that are over, `shutdown` ends them.
//!
//! Knows jobs and workers, and nothing of how people and workers reach it.

pub mod coordinator;
pub mod entry;
mod recovery;
mod retention;
mod search;
mod shutdown;
pub mod submission;

pub use coordinator::Coordinator;
pub use submission::Submission;
