//! Stores and checkpoints: one conformance suite for every store, and property tests of retention.

mod conformance;
mod retention;
mod s3;
