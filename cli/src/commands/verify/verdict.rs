//! The verdict on each file of a checkpoint.

use antiphon_core::digest::Sha256Hash;
use serde::Serialize;

/// The verdict on one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) file: String,
    /// Size in bytes, from the manifest; None if the manifest does not name the file.
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<Sha256Hash>,
    pub(super) sound: bool,
    pub(super) state: State,
    /// What is wrong with the file, or why it could not be read.
    pub(super) reason: Option<String>,
}

/// The state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Sound,
    Damaged,
    /// The store did not return the file.
    Unreadable,
}

/// Number of files in this state.
pub(super) fn count(verdicts: &[Verdict], state: State) -> usize {
    verdicts.iter().filter(|verdict| verdict.state == state).count()
}
