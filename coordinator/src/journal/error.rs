//! What can go wrong with a journal.

use antiphon_core::ids::Term;
use antiphon_store::storage::StorageError;

/// Why a journal does not do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A later coordinator has opened it, and this one is fenced.
    #[error("another coordinator (term {by}) has taken over {state}; this one stops")]
    Fenced {
        /// URL of the state.
        state: String,
        /// The later coordinator's term.
        by: Term,
    },
    /// The store rejects the request, or fails.
    #[error("cannot {doing} the coordinator's journal in `{url}`: {reason}")]
    Store {
        /// `open`, `read`, `write to`.
        doing: &'static str,
        /// Where the journal is.
        url: String,
        /// The store's reason.
        reason: String,
    },
    /// The store does not answer.
    #[error(
        "cannot {doing} the coordinator's journal in `{url}`: the store has not answered for {seconds} s; check that it can \
         be reached from here"
    )]
    Slow {
        /// `open`, `read`, `write to`.
        doing: &'static str,
        /// Where the journal is.
        url: String,
        /// For how long.
        seconds: u64,
    },
    /// Another version has written it.
    #[error(
        "`{key}` in the coordinator's journal in `{url}` is not what this version of Antiphon writes ({reason}); start the \
         version that wrote it, or give this coordinator another --state"
    )]
    Foreign {
        /// The key.
        key: String,
        /// Where the journal is.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The state cannot be opened.
    #[error("{0}")]
    State(String),
}

impl From<StorageError> for JournalError {
    fn from(error: StorageError) -> Self {
        Self::State(error.to_string())
    }
}
