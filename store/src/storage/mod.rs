//! Object stores by URL: a local folder, memory, S3, Google Cloud Storage, Azure Blob Storage; and, read-only, web
//! servers. Stores are opened only here.
//!
//! ```text
//! client of the store ─▶ injected faults ─▶ Store ─▶ retries ─▶ checkpoints
//! ```
//! Each stage but the first wraps an [`object_store::ObjectStore`] in another one. Faults are added when a store is
//! opened ([`StoreOptions`]). The caller adds retries, because it knows how long it may wait ([`Store::retrying`]).

mod error;
mod memory;
mod open;
mod store;

pub use error::StorageError;
pub use open::{StoreOptions, install_crypto_provider};
pub use store::Store;

pub use crate::reason::reason;
pub use antiphon_process::innermost;
