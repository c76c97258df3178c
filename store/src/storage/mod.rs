//! Object stores by URL: a local folder, memory, S3, Google Cloud Storage, Azure Blob Storage; to read only, web
//! servers. This is the one place where stores are opened.
//!
//! ```text
//! client of the store ─▶ faults on purpose ─▶ Store ─▶ retries ─▶ checkpoints
//! ```
//! Each stage but the first wraps an [`object_store::ObjectStore`] in another one. Faults are added when a store is
//! opened ([`StoreOptions`]), retries by the caller, who knows how long it may wait ([`Store::retrying`]).

mod error;
mod memory;
mod open;
mod store;

pub use error::StorageError;
pub use open::{StoreOptions, install_crypto_provider};
pub use store::Store;

pub use crate::reason::reason;
pub use antiphon_process::innermost;
