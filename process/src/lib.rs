//! What all programs share: signals, exit codes and error messages.

mod exit;
mod message;
mod signals;

pub use exit::{Exit, failed};
pub use message::{full_message, innermost};
pub use signals::{Interrupts, cancelled_by_signal};
