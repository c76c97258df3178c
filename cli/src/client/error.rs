//! Errors between a client and its coordinator.

use std::io;

use antiphon_process::Exit;
use antiphon_transport::{AddressError, status};
use tonic::{Code, Status};

/// Why a request to the coordinator failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The address of the coordinator is invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The coordinator does not answer, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// The coordinator took too long.
    #[error("{0}")]
    TimedOut(String),
    /// The coordinator refused the request, for example because the job does not exist.
    #[error("{0}")]
    Refused(String),
    /// The coordinator failed.
    #[error("{0}")]
    Failed(String),
    /// The output that notices are printed to is closed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

impl ClientError {
    /// The error that a gRPC status of the coordinator at `url` stands for.
    pub(super) fn from_status(url: &str, status: &Status) -> Self {
        match status.code() {
            Code::DeadlineExceeded => Self::TimedOut(status.message().to_owned()),
            _ if status::is_broken(status) => {
                Self::Unreachable(format!("no coordinator answers at {url}: {}", status::message(status)))
            }
            Code::Unavailable => Self::Unreachable(status.message().to_owned()),
            Code::NotFound => Self::Refused(format!("{}; `antiphon jobs` lists all jobs", status.message())),
            Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition => {
                Self::Refused(status.message().to_owned())
            }
            _ => Self::Failed(status.message().to_owned()),
        }
    }

    /// Adds what to do if no coordinator answers. For the last message of a command.
    #[must_use]
    pub(crate) fn advised(self) -> Self {
        match self {
            Self::Unreachable(error) => Self::Unreachable(format!(
                "{error}; start one with `antiphon coordinator`, or name another with --coordinator"
            )),
            other => other,
        }
    }

    /// Whether the same request may succeed once the coordinator is back.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    /// The exit code of a command that ends with this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Address(_) | Self::Refused(_) => Exit::Usage,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Failed(_) | Self::Output(_) => Exit::Failed,
        }
    }
}
