//! Object stores by URL, and the layout of checkpoints in them. Coordinator, worker and command line share this crate.

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
