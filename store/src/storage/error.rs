//! Why a store cannot be opened.

use antiphon_process::innermost;

/// The supported kinds of URL, for messages.
pub(super) const SCHEMES: &str =
    "a path, file://, memory://NAME, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX";

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The text is not a URL.
    #[error("`{url}` is not a URL ({source}); use {SCHEMES}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// No store has this scheme.
    #[error("`{url}`: there is no store for `{scheme}://`; use {SCHEMES}")]
    Scheme {
        /// What was given.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// The store is a web server, which is read-only.
    #[error("`{url}` can be read but not written to; use {SCHEMES}")]
    ReadOnly {
        /// What was given.
        url: String,
    },
    /// The URL has no bucket, container or name.
    #[error("`{url}` names no bucket, container or store; use {SCHEMES}")]
    NoBucket {
        /// What was given.
        url: String,
    },
    /// The path cannot be the path of an object.
    #[error("`{url}` is not a usable path: {source}")]
    Path {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: object_store::path::Error,
    },
    /// The path is relative, but the process has no working folder.
    #[error("`{url}` is relative, but the working folder is unknown: {source}; use an absolute path")]
    WorkingFolder {
        /// What was given.
        url: String,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The store's settings are wrong or missing.
    #[error("`{url}` cannot be opened: {}; check the credentials and endpoint in the environment", innermost(source))]
    Settings {
        /// What was given.
        url: String,
        /// What is wrong.
        source: object_store::Error,
    },
}
