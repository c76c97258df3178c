//! The classes of generated data.

/// Classes of every generated data set.
pub const CLASSES: u32 = 10;
