//! Where people and workers come in: the listener, its gRPC services, and what errors are called there. Messages are taken apart,
//! the registry is called, answers are put together; nothing is decided here.

mod error;
pub mod jobs;
pub mod server;
pub mod training;
