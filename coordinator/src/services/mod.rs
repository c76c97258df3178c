//! The gRPC services: they take messages apart, call the coordinator, and put answers together. Nothing is decided here.

pub mod jobs;
pub mod training;
