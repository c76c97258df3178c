//! The wire of Antiphon: the services and messages of `antiphon.v1`, and their checked conversions.
//!
//! [`v1`] is generated from `proto/antiphon/v1/*.proto` and checked in, so that a build needs no protoc;
//! `UPDATE=1 cargo test -p antiphon-proto --test proto generated` writes it anew, and the same test fails when it is out of date.
//!
//! Nothing that came off the wire is used before it went through one of the conversions here. Past them values are valid
//! by type: names are names, tensors have the shape that was asked for and are finite, indices are below their counts.
//! What is refused is refused with a [`WireError`] that names the field. What can only be judged by a job's state (is it
//! this turn? this attempt?) is not judged here.

pub mod assignment;
pub mod chunks;
pub mod contribution;
mod elements;
pub mod error;
pub mod evaluation;
pub mod ids;
pub mod parts;
pub mod stream;
pub mod tensor;
pub mod times;

pub use error::WireError;

/// The generated messages, clients and servers of `antiphon.v1`.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::too_many_lines)]
pub mod v1 {
    include!("generated/antiphon.v1.rs");
}

/// The services' file descriptors, encoded, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/antiphon.v1.bin");

/// Bytes that one gRPC message may have: tensors come in [`chunks`], so that only names are left, of the samples of a chunk
/// of logits at most.
pub const MESSAGE_LIMIT: usize = 64 << 20;
