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
        /// The store's error.
        source: object_store::Error,
    },
    /// There is no complete checkpoint.
    #[error("there is no complete checkpoint in `{url}`: no folder in it holds a {MANIFEST}")]
    NoCheckpoint {
        /// The folder that was searched.
        url: String,
    },
    /// The checkpoint is already complete. Another coordinator may have written it.
    #[error("`{url}` exists already: the checkpoint is complete and is never written twice")]
    Exists {
        /// The manifest.
        url: String,
    },
    /// The checkpoint is already complete, and its file of this name is different or missing. The writer has been
    /// replaced.
    #[error(
        "`{url}` is not written: another process has completed the checkpoint with a different file of this name, or \
         without one"
    )]
    Superseded {
        /// The file.
        url: String,
    },
    /// The manifest cannot be read.
    #[error("manifest `{url}` cannot be read: {reason}")]
    Manifest {
        /// The manifest.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest does not name this file.
    #[error("checkpoint `{url}` has no file `{file}`")]
    NoFile {
        /// The checkpoint.
        url: String,
        /// The file.
        file: String,
    },
    /// A file does not match the manifest.
    #[error("`{url}` is damaged: its {what} is {given}, but the manifest says {expected}")]
    Damaged {
        /// The file.
        url: String,
        /// The property that differs: `size` or `SHA-256`.
        what: &'static str,
        /// The value of the file.
        given: String,
        /// The value in the manifest.
        expected: String,
    },
}

impl CheckpointError {
    /// Whether the object does not exist.
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
