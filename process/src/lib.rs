//! What all programs do alike: how they are asked to end, and how they tell what went wrong.

mod signals;
mod words;

pub use signals::{INTERRUPTED, Interrupts, cancelled_by_signal};
pub use words::in_words;
