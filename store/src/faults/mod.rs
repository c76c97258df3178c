//! Stores that fail on purpose, to test jobs.
//!
//! A program asks for faults where it opens its stores ([`crate::storage::StoreOptions`]); those of this project take
//! them from the variable `ANTIPHON_STORE_FAULTS`, as in
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
