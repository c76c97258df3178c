//! Object stores by URL, and the layout of checkpoints in them: shared by coordinator, worker and command line.

pub mod bounds;
pub mod checkpoints;
pub mod faults;
mod memory;
pub mod part;
pub mod patience;
pub mod storage;
mod transfer;
mod uploads;
