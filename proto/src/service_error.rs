//! Errors for callers of a service. Each error has a code, and each code has a gRPC status. Only this file turns errors
//! into gRPC statuses.

use std::fmt;

use tonic::{Code, Status};

/// The kind of an error, independent of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceErrorCode {
    /// The requested thing does not exist.
    NotFound,
    /// The thing to create exists already.
    AlreadyExists,
    /// The request itself is invalid.
    InvalidArgument,
    /// The request is valid, but does not fit the current state.
    FailedPrecondition,
    /// The request is too large, or the coordinator lacks a resource.
    ResourceExhausted,
    /// The caller sent nothing for too long.
    DeadlineExceeded,
    /// A retry may succeed.
    Unavailable,
}

impl ServiceErrorCode {
    /// The gRPC status with this code and this message.
    pub fn status(self, message: impl fmt::Display) -> Status {
        Status::new(self.grpc(), message.to_string())
    }

    /// The gRPC code.
    fn grpc(self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::InvalidArgument => Code::InvalidArgument,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Unavailable => Code::Unavailable,
        }
    }
}

/// An error that is reported to a caller.
pub trait ServiceError: fmt::Display {
    /// The code of the error.
    fn code(&self) -> ServiceErrorCode;
}

/// The gRPC status of an error.
pub fn status(error: impl ServiceError) -> Status {
    error.code().status(error)
}
