//! What was found of each part of a checkpoint.

use antiphon_core::digest::Sha256Hash;
use serde::Serialize;

/// What was found of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    pub(super) part: String,
    /// Bytes, as the manifest says; none where it does not name the part.
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<Sha256Hash>,
    pub(super) sound: bool,
    pub(super) state: State,
    /// What is wrong with it, or why it could not be read.
    pub(super) reason: Option<String>,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Sound,
    Damaged,
    /// The store did not give it, so nobody knows.
    Unread,
}

/// How many parts are so.
pub(super) fn count(verdicts: &[Verdict], state: State) -> usize {
    verdicts.iter().filter(|verdict| verdict.state == state).count()
}
