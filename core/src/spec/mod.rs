//! The job specification.

mod model;

pub use model::*;
