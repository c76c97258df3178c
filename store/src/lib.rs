//! Object stores by URL, and the layout of checkpoints in them: shared by coordinator, worker and command line.
//!
//! ENGINEER F: please write `storage.rs` and `checkpoints.rs` (Store, open, Manifest, CheckpointStore) HERE instead of in
//! `coordinator/`: workers restore from and write to checkpoints, and the command line reads them, without knowing the
//! coordinator's code. Engineer C's `worker/src/data/source` keeps reading data; it will use `open` from here afterwards.
//! Remove this note when you do.

pub mod part;
