//! The wire: generated code, its reference page, conversions, and tensors in chunks.

mod chunks;
mod conversions;
mod generated;
mod reference;
