//! The wire: generated code, conversions, and tensors in chunks.

mod chunks;
mod conversions;
mod generated;
