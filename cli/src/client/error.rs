//! What can go wrong between a client and its coordinator.

use std::error::Error as _;
use std::io;

use antiphon_process::{Exit, innermost};
use tonic::{Code, Status};

/// Why the coordinator did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The address of the coordinator is not one.
    #[error("`{url}` is not an address: {reason}; give it as http://host:port")]
    Address { url: String, reason: String },
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
        let connection_broke = status.source().is_some() || speaks_no_grpc(status);
        match status.code() {
            _ if connection_broke && !matches!(status.code(), Code::DeadlineExceeded) => {
                Self::Unreachable(format!("no answer from the coordinator at {url}: {}", reason(status)))
            }
            Code::Unavailable => Self::Unreachable(status.message().to_owned()),
            Code::DeadlineExceeded => Self::TimedOut(status.message().to_owned()),
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
            Self::Address { .. } | Self::Refused(_) => Exit::Usage,
            Self::Unreachable(_) => Exit::Unreachable,
            Self::TimedOut(_) => Exit::TimedOut,
            Self::Failed(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// Whether the answer is one of HTTP alone, such as 404: tonic makes a status of it.
pub(super) fn speaks_no_grpc(status: &Status) -> bool {
    status.message().starts_with("grpc-status header missing")
}

/// What is wrong with a connection, or with the server at its other end.
pub(super) fn reason(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), innermost)
}
