//! Retries of transient store errors, with growing pauses, for a bounded time.
//!
//! Object stores answer 503 under load, connections break, and a file server is away while it restarts. None of that
//! should end hours of training. An error that waiting does not cure (no access, a wrong address, an object that exists
//! already) is not retried.
//!
//! [`RetryPolicy::run`] retries any operation. [`Retrying`] is a store that retries each of its requests. Writing a
//! file of a checkpoint uses the policy directly, because it looks at the folder before each attempt.

mod policy;
mod store;
mod transient;

pub use policy::{Retry, RetryPolicy};
pub use store::Retrying;
pub use transient::Transient;
pub(crate) use transient::UploadForgotten;
