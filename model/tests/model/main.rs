//! Tests of encoders: against PyTorch, and with pretrained weights.

mod pytorch;
// The stores of the worker, whose errors are among the tested messages.
#[allow(unreachable_pub, reason = "it is a file of another crate")]
#[path = "../../../worker/src/stores.rs"]
mod stores;
mod weights;
