//! What callers are told of errors: one gRPC code for each.

use antiphon_store::retry::Transient as _;
use tonic::Status;

use crate::job::resume::ResumeError;
use crate::registry::coordinator::{StopError, UnknownJob};
use crate::registry::submission::SubmitError;
use crate::workers::pool::RegisterError;

impl From<RegisterError> for Status {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Duplicate { .. } => Self::already_exists(error.to_string()),
        }
    }
}

impl From<UnknownJob> for Status {
    fn from(error: UnknownJob) -> Self {
        Self::not_found(error.to_string())
    }
}

impl From<StopError> for Status {
    fn from(error: StopError) -> Self {
        match error {
            StopError::Unknown(error) => error.into(),
            StopError::Journal(error) => Self::unavailable(error.to_string()),
        }
    }
}

impl From<SubmitError> for Status {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Stopping | SubmitError::Underway { .. } | SubmitError::Journal(_) => {
                Self::unavailable(message)
            }
            SubmitError::Checkpoint(error) | SubmitError::Resume(ResumeError::Read(error)) if error.is_transient() => {
                Self::unavailable(message)
            }
            SubmitError::Specification(_) | SubmitError::Storage(_) => Self::invalid_argument(message),
            SubmitError::Threads(_) => Self::resource_exhausted(message),
            SubmitError::Duplicate { .. } => Self::already_exists(message),
            SubmitError::HeadTooLarge { .. }
            | SubmitError::Checkpoint(_)
            | SubmitError::Resume(_)
            | SubmitError::Beyond { .. }
            | SubmitError::OtherModalities { .. } => Self::failed_precondition(message),
        }
    }
}
