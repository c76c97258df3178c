//! Fault injection for stores, to test jobs.
//!
//! A program enables faults when it opens its stores ([`crate::storage::StoreOptions`]). The programs of this project
//! read them from the variable `ANTIPHON_STORE_FAULTS`, for example
//! `seed=7,errors=0.1,lost=0.05,slow=0.2,slow_ms=300,truncated=0.05`. What happens to a request is a function of the
//! seed and of the number of requests that this process has made before.

mod config;
mod fate;
mod store;
mod uploads;

pub use config::{BadFaults, BadVariable, Faults, VARIABLE};
pub use fate::MESSAGE;
pub(crate) use store::Faulty;
pub(crate) use uploads::FaultyUploads;
