//! Where people and workers connect: the gRPC services, how they shut down, and what callers are told of errors. A
//! service decodes a request, calls the registry, and encodes the answer; it decides nothing.

mod error;
pub mod jobs;
pub mod server;
pub mod training;
