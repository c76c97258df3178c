//! The checkpoints of one job in an object store.
//!
//! ```text
//! <job folder>/checkpoints/00000120/head.safetensors, projector.safetensors, encoder-audio.safetensors, …
//!                                   manifest.json        last, and only if there is none
//! ```
//! Invariants:
//! 1. A checkpoint exists when its manifest does, and a manifest is never overwritten.
//! 2. Every file that is read is checked against the manifest's size and SHA-256 before it is used.
//! 3. No file is overwritten once there is a manifest.
//! 4. Garbage collection removes a checkpoint's manifest before its files. It does not touch a checkpoint that is newer
//!    than the newest complete one or in progress, or files whose manifest was written in the meantime.

mod checkpoint;
mod error;
mod files;
mod manifest;
mod retention;
mod store;

pub use checkpoint::Checkpoint;
pub use error::CheckpointError;
pub use files::write_file;
pub use manifest::{FORMAT, FileEntry, MANIFEST, Manifest};
pub use store::{CheckpointStore, FOLDER};
