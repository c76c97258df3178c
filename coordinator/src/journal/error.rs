//! The errors of a journal.

use antiphon_core::ids::Term;
use antiphon_store::storage::StorageError;

/// Why a request to the journal failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A newer coordinator has opened the journal, and this one is fenced.
    #[error("another coordinator (term {by}) has taken over {state}; this one stops")]
    Fenced {
        /// URL of the state.
        state: String,
        /// The term of the newer coordinator.
        by: Term,
    },
    /// The store rejected the request, or failed.
    #[error("cannot {doing} the coordinator's journal in `{url}`: {reason}")]
    Store {
        /// `open`, `read`, `write to`.
        doing: &'static str,
        /// Where the journal is.
        url: String,
        /// The store's error.
        reason: String,
    },
    /// The store does not answer.
    #[error(
        "cannot {doing} the coordinator's journal in `{url}`: the store has not answered for {seconds} s; check that \
         this machine can reach it"
    )]
    Slow {
        /// `open`, `read`, `write to`.
        doing: &'static str,
        /// Where the journal is.
        url: String,
        /// How long the store has not answered, in seconds.
        seconds: u64,
    },
    /// Another version of Antiphon has written the journal.
    #[error(
        "`{key}` in the coordinator's journal in `{url}` has another format than this version of Antiphon writes \
         ({reason}); start the version that wrote it, or give this coordinator another --state"
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
