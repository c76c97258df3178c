//! Retries of transient store errors, with growing pauses, for a bounded time.
//!
//! Object stores answer 503 under load, connections break, and file servers restart. None of that should end hours of
//! training. Permanent errors (no access, a wrong address, an object that exists already) are not retried.
//!
//! [`RetryPolicy::run`] retries any operation. [`Retrying`] is a store that retries each of its requests. Code that
//! writes a file of a checkpoint uses the policy directly, because it checks the folder before each attempt.

mod policy;
mod store;
mod transient;

pub use policy::{Retry, RetryPolicy};
pub use store::Retrying;
pub use transient::Transient;
pub(crate) use transient::UploadForgotten;
