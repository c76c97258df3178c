//! The wire of Antiphon: the services and messages of `antiphon.v1`, and their checked conversions.
//!
//! [`v1`] is generated from `proto/antiphon/v1/*.proto` and checked in, so that a build needs no protoc; `UPDATE=1
//! cargo test -p antiphon-proto --test proto generated` regenerates it, and the same test fails when it is out of date.
//!
//! Every message from the wire passes one of the conversions here before it is used. After that, values are valid by
//! type: names are names, tensors have the expected shape and are finite, indices are below their counts. A rejected
//! message is a [`WireError`] that names the field. The job checks what depends on its state (the turn, the attempt).

pub mod assignment;
pub mod chunks;
pub mod contribution;
mod elements;
pub mod error;
pub mod evaluation;
pub mod files;
pub mod ids;
pub mod service_error;
pub mod stream;
pub mod tensor;
pub mod times;

pub use error::WireError;
pub use service_error::{ServiceError, ServiceErrorCode};

/// The generated messages, clients and servers of `antiphon.v1`.
#[allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::too_many_lines)]
pub mod v1 {
    include!("generated/antiphon.v1.rs");
}

/// The services' file descriptors, encoded, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/antiphon.v1.bin");

/// The largest gRPC message in bytes. Large tensors are sent in [`chunks`], so that the ids of a chunk of logits are
/// the largest content.
pub const MESSAGE_LIMIT: usize = 64 << 20;
