//! Encoders as their users see them: against PyTorch, and with pretrained weights.

mod pytorch;
// The stores that the worker hands in, whose refusals are among the messages here.
#[allow(unreachable_pub, reason = "it is a file of another crate")]
#[path = "../../../worker/src/stores.rs"]
mod stores;
mod weights;
