//! Stores and checkpoints: one conformance suite over every store, and laws of what is kept.

mod conformance;
mod retention;
mod s3;
