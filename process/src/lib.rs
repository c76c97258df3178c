//! What all programs do alike: how they are asked to end, and how they tell what went wrong.

mod exit;
mod signals;
mod words;

pub use exit::{Exit, failed};
pub use signals::{Interrupts, cancelled_by_signal};
pub use words::{in_words, innermost};
