//! Which errors are transient.

use std::fmt;
use std::io::{self, ErrorKind};

use antiphon_process::innermost;
use object_store::client::{HttpError, HttpErrorKind};

/// An error that knows whether a retry may succeed.
pub trait Transient: fmt::Display {
    /// Whether a retry may succeed.
    fn is_transient(&self) -> bool;
}

/// The store no longer knows a multipart upload, for example after a lost response. A retry starts a new upload.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the store no longer knows the upload")]
pub(crate) struct UploadForgotten;

impl Transient for object_store::Error {
    fn is_transient(&self) -> bool {
        use object_store::Error;
        match self {
            Error::Generic { source, .. } => waiting_may_help(source.as_ref()),
            // A task of the store was cancelled, or panicked.
            Error::JoinError { .. } => true,
            _ => false,
        }
    }
}

/// Whether the cause is transient: a broken connection, an error of the operating system, or a server's response.
fn waiting_may_help(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let broken = error.downcast_ref::<HttpError>().is_some_and(|error| error.kind() != HttpErrorKind::Unknown);
        if broken || error.is::<UploadForgotten>() {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return is_passing(error.kind());
        }
        cause = error.source();
    }
    answered(&innermost(error))
}

/// Whether a server's response is transient: an error of a server or gateway, or too many requests. The client's type
/// with the status is private, so its message is parsed.
fn answered(text: &str) -> bool {
    if let Some(answer) = text.strip_prefix("Server returned non-2xx status code: ") {
        let status = answer.split(' ').next().and_then(|digits| digits.parse::<u16>().ok());
        return status.is_some_and(|status| status >= 500 || status == 408 || status == 429);
    }
    // S3 reports it inside a response that started as a success.
    text.starts_with("Server returned error response: ")
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::WouldBlock
            | ErrorKind::ResourceBusy
            | ErrorKind::StaleNetworkFileHandle
            | ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Failure(&'static str);

    #[test]
    fn transient_errors_are_told_from_others() {
        let of =
            |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
        let answer = |text: &str| of(text.to_owned().into());
        let status = |status: &str| answer(&format!("Server returned non-2xx status code: {status}"));
        let transient = [
            of(Box::new(HttpError::new(HttpErrorKind::Timeout, Failure("late")))),
            of(Box::new(io::Error::from(ErrorKind::ConnectionReset))),
            of(Box::new(UploadForgotten)),
            status("503 Service Unavailable: slow down"),
            status("500 Internal Server Error: "),
            status("429 Too Many Requests: "),
            answer("Server returned error response: <Error><Code>SlowDown</Code></Error>"),
        ];
        for error in transient {
            assert!(error.is_transient(), "{error}");
        }
        let path = || "a".to_owned();
        let lasting = [
            of(Box::new(io::Error::from(ErrorKind::PermissionDenied))),
            status("400 Bad Request: "),
            answer("no such bucket"),
            object_store::Error::PermissionDenied { path: path(), source: "403".into() },
            object_store::Error::AlreadyExists { path: path(), source: "412".into() },
            object_store::Error::Precondition { path: path(), source: "412".into() },
            object_store::Error::NotFound { path: path(), source: "404".into() },
        ];
        for error in lasting {
            assert!(!error.is_transient(), "{error}");
        }
    }
}
