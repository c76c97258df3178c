//! What can go wrong with checkpoints.

use super::manifest::MANIFEST;
use crate::retry::Transient;
use crate::storage::{self, StorageError, Store};

/// What can go wrong with checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The URL cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A request to the store failed.
    #[error("cannot {doing} `{url}`: {}", storage::reason(source))]
    Request {
        /// `read`, `write`, …
        doing: &'static str,
        /// The object.
        url: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// There is no complete checkpoint.
    #[error("there is no complete checkpoint in `{url}`: no folder in it holds a {MANIFEST}")]
    NoCheckpoint {
        /// Where was looked.
        url: String,
    },
    /// The checkpoint is complete already; another coordinator may have written it.
    #[error("`{url}` exists already: its checkpoint is complete and is not written twice")]
    Exists {
        /// The manifest.
        url: String,
    },
    /// The checkpoint is complete already, with another part of this name or with none; whoever writes it has been replaced.
    #[error(
        "`{url}` is not written: its checkpoint is complete already, and this part of it is another's; it came too late"
    )]
    Superseded {
        /// The part.
        url: String,
    },
    /// The manifest is not one.
    #[error("`{url}` is not a manifest: {reason}")]
    Manifest {
        /// The manifest.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest does not name this part.
    #[error("`{url}` has no part `{part}`")]
    NoPart {
        /// The checkpoint.
        url: String,
        /// The part.
        part: String,
    },
    /// A part is not the one that the manifest names.
    #[error("`{url}` is damaged: its {what} is {given}, but the manifest says {expected}")]
    Damaged {
        /// The part.
        url: String,
        /// `size` or `SHA-256`.
        what: &'static str,
        /// What was found.
        given: String,
        /// What the manifest says.
        expected: String,
    },
}

impl CheckpointError {
    /// Whether an object was asked for that is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Request { source: object_store::Error::NotFound { .. }, .. })
    }
}

impl Transient for CheckpointError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Request { source, .. } if source.is_transient())
    }
}

pub(super) fn child_url(place: &Store, name: &str) -> String {
    place.child(name).url()
}

pub(super) fn request(doing: &'static str, place: &Store, name: &str, source: object_store::Error) -> CheckpointError {
    CheckpointError::Request { doing, url: child_url(place, name), source }
}
