//! Patience with a store: what failed for the moment is done again, after growing pauses, up to a bounded time.
//!
//! Object stores answer 503 under load, connections break, and a file server is away while it starts again. None of that
//! should end hours of training. What will not get better by waiting (no access, a wrong address, an object that exists
//! already) is never done again.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use antiphon_core::backoff::Backoff;
use object_store::client::{HttpError, HttpErrorKind};
use tokio::time::Instant;

use crate::storage::innermost;

/// The pauses after failures.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(10) };

/// A failure after which the operation is done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    /// What went wrong, in words, with the object that it went wrong with.
    pub reason: String,
    /// Failures so far, this one among them.
    pub failures: u32,
    /// Time since the operation was begun.
    pub waited: Duration,
    /// The pause that follows.
    pub pause: Duration,
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; tried for {} s so far", self.reason, self.waited.as_secs())
    }
}

/// An error that says whether the same operation may succeed a little later.
pub trait Transient: fmt::Display {
    /// Whether waiting may help.
    fn is_transient(&self) -> bool;
}

/// How long an operation is done again, and who is told.
#[derive(Clone)]
pub struct Patience {
    most: Duration,
    seed: u64,
    on_failure: Option<OnFailure>,
}

type OnFailure = Arc<dyn Fn(&Setback) + Send + Sync>;

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("most", &self.most).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Patience {
    /// Every operation is done once.
    #[must_use]
    pub const fn none() -> Self {
        Self { most: Duration::ZERO, seed: 0, on_failure: None }
    }

    /// An operation is done again until `most` has passed since it first failed, which may be long after it was begun: an upload
    /// over a slow line is no failure. The lengths of the pauses are a function of
    /// `seed` and of what is done, so that clients with different seeds do not come back all at once.
    #[must_use]
    pub const fn new(most: Duration, seed: u64) -> Self {
        Self { most, seed, on_failure: None }
    }

    /// The same, for no longer than `most`.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self { most: self.most.min(most), ..self }
    }

    /// The same, and `on_failure` is called after every failure that is followed by another attempt.
    #[must_use]
    pub fn telling(self, on_failure: impl Fn(&Setback) + Send + Sync + 'static) -> Self {
        Self { on_failure: Some(Arc::new(on_failure)), ..self }
    }

    /// Does `operation` until it succeeds, fails for good, or patience ends. `what` names it, for the lengths of the pauses.
    ///
    /// # Errors
    /// The last failure.
    pub async fn keep_trying<T, E, F>(&self, what: impl AsRef<str>, mut operation: impl FnMut() -> F) -> Result<T, E>
    where
        E: Transient,
        F: Future<Output = Result<T, E>>,
    {
        let (begun, mut failing_since) = (Instant::now(), None);
        let mut failures = 0;
        loop {
            let error = match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let (waited, failing) = (begun.elapsed(), failing_since.get_or_insert_with(Instant::now).elapsed());
            let pause = self.pause(failures, failing, what.as_ref()).filter(|_| error.is_transient());
            let Some(pause) = pause else { return Err(error) };
            failures += 1;
            if let Some(on_failure) = &self.on_failure {
                on_failure(&Setback { reason: error.to_string(), failures, waited, pause });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The pause after one more failure, which came when so much time had passed since the first; None when that was all.
    fn pause(&self, failures: u32, failing: Duration, what: &str) -> Option<Duration> {
        let left = self.most.checked_sub(failing).filter(|left| !left.is_zero())?;
        Some(PAUSES.pause(failures, self.seed, &["patience".into(), what.into()]).min(left))
    }
}

/// A multipart upload that the store no longer knows, as after an answer that was lost: done again, it starts anew.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the store has forgotten the upload")]
pub(crate) struct UploadForgotten;

impl Transient for object_store::Error {
    fn is_transient(&self) -> bool {
        use object_store::Error;
        match self {
            Error::Generic { source, .. } => waiting_may_help(source.as_ref()),
            // A task of the store's own was cut off, or panicked.
            Error::JoinError { .. } => true,
            _ => false,
        }
    }
}

/// Looks for the cause: a broken connection, an operating system's error, or a server's answer.
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

/// Whether a server's answer is one of those that pass: a server or gateway in trouble, or asked too much. The type that
/// holds the status is private to the client, its text is not.
fn answered(text: &str) -> bool {
    if let Some(answer) = text.strip_prefix("Server returned non-2xx status code: ") {
        let status = answer.split(' ').next().and_then(|digits| digits.parse::<u16>().ok());
        return status.is_some_and(|status| status >= 500 || status == 408 || status == 429);
    }
    // S3 says so within an answer that began as a success.
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
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    #[error("{0}")]
    struct Failure(&'static str);

    impl Transient for Failure {
        fn is_transient(&self) -> bool {
            self.0 == "busy"
        }
    }

    async fn tried(most: Duration, failures: &[&'static str]) -> (Result<usize, Failure>, Vec<Setback>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let patience =
            Patience::new(most, 1).telling(move |setback| tell.lock().expect("nobody panicked").push(setback.clone()));
        let mut attempts = 0;
        let result = patience.keep_trying("a part", || {
            attempts += 1;
            let answer = failures.get(attempts - 1).map_or(Ok(attempts), |failure| Err(Failure(failure)));
            std::future::ready(answer)
        });
        let result = result.await;
        let told = told.lock().expect("nobody panicked").clone();
        (result, told)
    }

    #[tokio::test]
    async fn what_passes_is_done_again_and_told_of_each_time() {
        let (result, told) = tried(Duration::from_secs(600), &["busy"; 2]).await;
        assert_eq!(result, Ok(3));
        assert_eq!(told.iter().map(|setback| setback.failures).collect::<Vec<_>>(), [1, 2]);
        assert!(told[0].waited + told[0].pause <= told[1].waited, "{told:?}");
        let later = Setback { waited: Duration::from_millis(35_900), ..told[1].clone() };
        assert_eq!(later.to_string(), "busy; tried for 35 s so far");
    }

    #[tokio::test]
    async fn what_stays_wrong_is_not_done_again_and_without_patience_nothing_is() {
        let (result, told) = tried(Duration::from_secs(600), &["forbidden", "busy"]).await;
        assert_eq!((result, told), (Err(Failure("forbidden")), Vec::new()));
        let (result, told) = tried(Duration::ZERO, &["busy"]).await;
        assert_eq!((result, told), (Err(Failure("busy")), Vec::new()));
    }

    /// The pauses if every attempt takes a millisecond, and when the last failure came.
    fn pauses(most: Duration, seed: u64) -> (Vec<Duration>, Duration) {
        let patience = Patience::new(most, seed);
        let (mut all, mut waited) = (Vec::new(), Duration::from_millis(1));
        while let Some(pause) = patience.pause(all.len() as u32, waited, "a part") {
            all.push(pause);
            waited += pause + Duration::from_millis(1);
        }
        (all, waited)
    }

    #[test]
    fn patience_ends_on_time() {
        for seed in 0..100 {
            let most = Duration::from_millis(1 + 977 * seed);
            let (all, waited) = pauses(most, seed);
            assert!((most..most + Duration::from_millis(2)).contains(&waited), "{waited:?} instead of {most:?}");
            assert!(all.len() < 30, "they grow: {all:?}");
        }
    }

    #[test]
    fn pauses_are_a_function_of_the_seed() {
        let most = Duration::from_secs(60);
        assert_eq!(pauses(most, 1), pauses(most, 1));
        assert_ne!(pauses(most, 1), pauses(most, 2));
    }

    #[test]
    fn errors_are_told_apart() {
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
