//! The checkpoints of one job in an object store.
//!
//! ```text
//! <job folder>/checkpoints/00000120/head.safetensors, projector.safetensors, encoder-audio.safetensors, …
//!                                   manifest.json        last, and only if there is none
//! ```
//! Invariants: a checkpoint exists when its manifest does, and a manifest is never overwritten; what is read is compared with
//! the manifest's sizes and SHA-256 before it is used; a part is not written over once there is a manifest; clearing up removes a
//! checkpoint's manifest before its parts, and never touches a checkpoint newer than the newest complete one, one that is said to
//! be in progress, or what a manifest names that was written meanwhile.

mod checkpoint;
mod error;
mod files;
mod manifest;
mod retention;
mod store;

pub use checkpoint::Checkpoint;
pub use error::CheckpointError;
pub use files::write_part;
pub use manifest::{FORMAT, MANIFEST, Manifest, PartEntry};
pub use store::{CheckpointStore, FOLDER};
