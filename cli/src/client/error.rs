//! What can go wrong between a client and its coordinator.

use std::io;

use antiphon_process::Exit;
use antiphon_transport::{AddressError, status};
use tonic::{Code, Status};

/// Why the coordinator did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The address of the coordinator is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The coordinator does not answer, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// The coordinator took too long.
    #[error("{0}")]
    TimedOut(String),
    /// The request is wrong, as one for a job that does not exist is.
    #[error("{0}")]
    Refused(String),
    /// The coordinator failed.
    #[error("{0}")]
    Failed(String),
    /// Where notices are printed is closed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl ClientError {
    /// What an answer of the coordinator at `url` says.
    pub(super) fn from_status(url: &str, status: &Status) -> Self {
        match status.code() {
            Code::DeadlineExceeded => Self::TimedOut(status.message().to_owned()),
            _ if status::is_broken(status) => {
                Self::Unreachable(format!("no answer from the coordinator at {url}: {}", status::message(status)))
            }
            Code::Unavailable => Self::Unreachable(status.message().to_owned()),
            Code::NotFound => Self::Refused(format!("{}; `antiphon jobs` lists all jobs", status.message())),
            Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition => {
                Self::Refused(status.message().to_owned())
            }
            _ => Self::Failed(status.message().to_owned()),
        }
    }

    /// Whether the same request may succeed once the coordinator is back.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// What a command ends with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Address(_) | Self::Refused(_) => Exit::Usage,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Failed(_) | Self::Output(_) => Exit::Failed,
        }
    }
}
