//! The code of each error that is reported to callers. `antiphon_proto::service_error` has the codes and their
//! statuses.

use antiphon_proto::{ServiceError, ServiceErrorCode};
use antiphon_store::retry::Transient as _;
use tonic::Status;

use crate::events::WatchError;
use crate::job::resume::ResumeError;
use crate::registry::coordinator::{RegisterWorkerError, StopError, UnknownJob};
use crate::registry::submission::SubmitError;
use crate::workers::pool::RegisterError;
use crate::workers::session::{FirstMessageError, SessionEnd};

/// The answer to a stream that did not begin with a registration.
pub(super) fn first_message_status(error: FirstMessageError) -> Status {
    let code = match &error {
        // The stream's own status, for example for a message that cannot be decoded.
        FirstMessageError::Disconnected(status) => return status.clone(),
        FirstMessageError::TimedOut => ServiceErrorCode::DeadlineExceeded,
        FirstMessageError::Closed => ServiceErrorCode::InvalidArgument,
        FirstMessageError::NotRegister => ServiceErrorCode::FailedPrecondition,
        FirstMessageError::Wire(error) => error.code(),
    };
    code.status(error)
}

/// The status that ends a worker's stream, if the worker is still connected.
pub(super) fn session_status(end: SessionEnd) -> Option<Status> {
    match end {
        SessionEnd::Closed | SessionEnd::Unread => None,
        // A broken connection does not deliver it. After a message that cannot be decoded, it says why.
        SessionEnd::Disconnected(status) => Some(status),
        SessionEnd::Malformed(error) => Some(error.into()),
        SessionEnd::TimedOut(_) => Some(ServiceErrorCode::DeadlineExceeded.status(end)),
        SessionEnd::Closing => Some(ServiceErrorCode::Unavailable.status(end)),
    }
}

impl ServiceError for RegisterError {
    fn code(&self) -> ServiceErrorCode {
        match self {
            Self::Duplicate { .. } => ServiceErrorCode::AlreadyExists,
        }
    }
}

impl ServiceError for RegisterWorkerError {
    fn code(&self) -> ServiceErrorCode {
        match self {
            Self::Stopping => ServiceErrorCode::Unavailable,
            Self::Pool(error) => error.code(),
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
