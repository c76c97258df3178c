//! Error messages for failed requests.

use antiphon_process::innermost;

/// Why a request to a store failed and what to do, in one line: `Connection refused (os error 111); check that …`.
#[must_use]
pub fn reason(error: &object_store::Error) -> String {
    use object_store::Error;
    match error {
        Error::NotFound { .. } => "there is no such object".to_owned(),
        Error::AlreadyExists { .. } | Error::Precondition { .. } => "it exists already".to_owned(),
        Error::PermissionDenied { .. } => "access was denied; give these credentials the right to do it".to_owned(),
        Error::Unauthenticated { .. } => {
            "the credentials were not accepted; set the credentials of this store in the environment".to_owned()
        }
        other => match innermost(other).strip_prefix("Server returned non-2xx status code: ") {
            // An error of the server: the user cannot fix it.
            Some(answer) if answer.starts_with('5') => format!("the server answered {answer}"),
            Some(answer) => {
                format!("the server answered {answer}; check the bucket and the credentials in the environment")
            }
            None => {
                format!("{}; check the address, and that this machine can reach the store", innermost(other))
            }
        },
    }
}
