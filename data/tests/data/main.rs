//! Data as its users see it: what comes out of files, and how bad files are refused.

mod bad_data;
mod batches;
mod common;
// The stores that the worker hands in, whose refusals are among the messages here.
#[allow(unreachable_pub, reason = "it is a file of another crate")]
#[path = "../../../worker/src/stores.rs"]
mod stores;
