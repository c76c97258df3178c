//! The gRPC services for clients and workers, their shutdown, and the errors for callers. A service decodes a request,
//! calls the registry, and encodes the answer. It decides nothing.

mod error;
pub mod jobs;
pub mod server;
pub mod training;
