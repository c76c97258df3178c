//! Whether a failed call is an error of the connection or of the request.

use std::error::Error as _;

use antiphon_process::innermost;
use tonic::{Code, Status};

/// Whether the coordinator itself did not answer, so that the same call may succeed later: it is unreachable or shuts
/// down, the connection broke, or another program answered.
#[must_use]
pub fn is_unreachable(status: &Status) -> bool {
    status.code() != Code::DeadlineExceeded && (status.code() == Code::Unavailable || is_broken(status))
}

/// Whether the coordinator refused the call. It would refuse the same call again.
#[must_use]
pub fn is_rejected(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

/// Whether the connection broke, or the other end does not speak gRPC.
#[must_use]
pub fn is_broken(status: &Status) -> bool {
    status.source().is_some() || speaks_no_grpc(status)
}

/// Whether the response is plain HTTP, such as 404, which tonic turns into a status.
#[must_use]
pub fn speaks_no_grpc(status: &Status) -> bool {
    status.message().starts_with("grpc-status header missing")
}

/// The error in one line. For a broken connection, the operating system's message.
#[must_use]
pub fn message(status: &Status) -> String {
    match (status.source(), status.message()) {
        (Some(error), _) => innermost(error),
        (None, "") => status.code().to_string(),
        (None, message) => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_told_from_broken_connections() {
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        assert!(is_unreachable(&broken) && is_broken(&broken) && !is_rejected(&broken), "{broken:?}");
        assert_eq!(message(&broken), "reset");
        let away = Status::unavailable("it is shutting down");
        assert!(is_unreachable(&away) && !is_broken(&away) && !is_rejected(&away));
        let other = Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404");
        assert!(is_unreachable(&other) && is_broken(&other));
        for refused in [Status::invalid_argument("no"), Status::already_exists("no"), Status::unauthenticated("no")] {
            assert!(is_rejected(&refused) && !is_unreachable(&refused), "{refused:?}");
        }
        let late = Status::deadline_exceeded("");
        assert!(!is_unreachable(&late) && !is_rejected(&late) && !message(&late).is_empty());
    }
}
