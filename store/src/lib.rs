//! Object stores by URL, and the layout of checkpoints in them: shared by coordinator, worker and command line.

pub mod bounds;
pub mod checkpoints;
pub mod faults;
mod multipart;
mod reason;
pub mod retry;
pub mod storage;
pub mod tensors;
mod transfer;
mod uploads;
