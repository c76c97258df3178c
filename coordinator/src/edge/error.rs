//! What callers are told of errors: each error has a code, and each code a status of the protocol it goes out by.

use std::fmt;

use antiphon_store::retry::Transient as _;
use tonic::{Code, Status};

use crate::events::WatchError;
use crate::job::resume::ResumeError;
use crate::registry::coordinator::{StopError, UnknownJob};
use crate::registry::submission::SubmitError;
use crate::workers::pool::RegisterError;

/// The kind of an error, independent of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceErrorCode {
    /// What the request names is not there.
    NotFound,
    /// What the request would make is there already.
    AlreadyExists,
    /// The request is wrong in itself.
    InvalidArgument,
    /// The request is right, but does not fit what is there.
    FailedPrecondition,
    /// The coordinator has too little of something.
    ResourceExhausted,
    /// A retry may succeed.
    Unavailable,
}

impl ServiceErrorCode {
    /// The code of gRPC.
    fn grpc(self) -> Code {
        match self {
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::InvalidArgument => Code::InvalidArgument,
            Self::FailedPrecondition => Code::FailedPrecondition,
            Self::ResourceExhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
        }
    }
}

/// An error that a caller is told of.
pub(super) trait ServiceError: fmt::Display {
    /// What kind of an error it is.
    fn code(&self) -> ServiceErrorCode;
}

/// The answer of a gRPC service to a request that failed.
pub(super) fn status(error: impl ServiceError) -> Status {
    Status::new(error.code().grpc(), error.to_string())
}

impl ServiceError for RegisterError {
    fn code(&self) -> ServiceErrorCode {
        match self {
            Self::Duplicate { .. } => ServiceErrorCode::AlreadyExists,
        }
    }
}

impl ServiceError for UnknownJob {
    fn code(&self) -> ServiceErrorCode {
        ServiceErrorCode::NotFound
    }
}

impl ServiceError for WatchError {
    fn code(&self) -> ServiceErrorCode {
        match self {
            Self::Suspended | Self::Journal(_) => ServiceErrorCode::Unavailable,
        }
    }
}

impl ServiceError for StopError {
    fn code(&self) -> ServiceErrorCode {
        match self {
            Self::Unknown(error) => error.code(),
            Self::Journal(_) => ServiceErrorCode::Unavailable,
        }
    }
}

impl ServiceError for SubmitError {
    fn code(&self) -> ServiceErrorCode {
        match self {
            Self::Stopping | Self::Underway { .. } | Self::Journal(_) => ServiceErrorCode::Unavailable,
            Self::Checkpoint(error) | Self::Resume(ResumeError::Read(error)) if error.is_transient() => {
                ServiceErrorCode::Unavailable
            }
            Self::Specification(_) | Self::Storage(_) | Self::Json(_) => ServiceErrorCode::InvalidArgument,
            Self::Threads(_) => ServiceErrorCode::ResourceExhausted,
            Self::Duplicate { .. } => ServiceErrorCode::AlreadyExists,
            Self::HeadTooLarge { .. }
            | Self::Checkpoint(_)
            | Self::Resume(_)
            | Self::Beyond { .. }
            | Self::OtherModalities { .. } => ServiceErrorCode::FailedPrecondition,
        }
    }
}
