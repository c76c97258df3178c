//! Tests of data: batches from files, and errors of invalid files.

mod bad_data;
mod batches;
mod common;
// The stores of the worker, whose errors are among the tested messages.
#[allow(unreachable_pub, reason = "it is a file of another crate")]
#[path = "../../../worker/src/stores.rs"]
mod stores;
