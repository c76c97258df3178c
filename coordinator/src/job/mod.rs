//! One task per job.
