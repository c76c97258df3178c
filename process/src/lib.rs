//! What all programs share: how they are asked to end, their exit codes, and their error messages.

mod exit;
mod message;
mod signals;

pub use exit::{Exit, failed};
pub use message::{full_message, innermost};
pub use signals::{Interrupts, cancelled_by_signal};
