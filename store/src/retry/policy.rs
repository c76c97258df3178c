//! How long an operation is retried, and who is notified.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use antiphon_core::backoff::Backoff;
use tokio::time::Instant;

use super::transient::Transient;

/// The back-off between attempts.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(10) };

/// A failure that is followed by another attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// The error message, which names the object.
    pub message: String,
    /// The number of failures so far, including this one.
    pub failures: u32,
    /// The time since the start of the first attempt.
    pub elapsed: Duration,
    /// The pause before the next attempt.
    pub pause: Duration,
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; retrying for {} s so far", self.message, self.elapsed.as_secs())
    }
}

/// How long operations are retried, and who is notified.
#[derive(Clone)]
pub struct RetryPolicy {
    timeout: Duration,
    seed: u64,
    on_retry: Option<OnRetry>,
}

type OnRetry = Arc<dyn Fn(&Retry) + Send + Sync>;

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy").field("timeout", &self.timeout).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl RetryPolicy {
    /// No retries.
    #[must_use]
    pub const fn none() -> Self {
        Self { timeout: Duration::ZERO, seed: 0, on_retry: None }
    }

    /// Retries an operation until `timeout` has passed since its first failure. The failure may come long after the
    /// start: a slow upload is not a failure. The pauses are a function of `seed` and of the operation, so that clients
    /// with different seeds do not retry at the same moment.
    #[must_use]
    pub const fn new(timeout: Duration, seed: u64) -> Self {
        Self { timeout, seed, on_retry: None }
    }

    /// The same policy with a timeout of at most `most`.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self { timeout: self.timeout.min(most), ..self }
    }

    /// The same policy, which calls `on_retry` before every retry.
    #[must_use]
    pub fn on_retry(self, on_retry: impl Fn(&Retry) + Send + Sync + 'static) -> Self {
        Self { on_retry: Some(Arc::new(on_retry)), ..self }
    }

    /// Runs `operation` until it succeeds, its error is not transient, or the timeout ends. `what` names it and so
    /// determines the pauses.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, E, F>(&self, what: impl AsRef<str>, mut operation: impl FnMut() -> F) -> Result<T, E>
    where
        E: Transient,
        F: Future<Output = Result<T, E>>,
    {
        let (started, mut failing_since) = (Instant::now(), None);
        let mut failures = 0;
        loop {
            let error = match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let (elapsed, failing) = (started.elapsed(), failing_since.get_or_insert_with(Instant::now).elapsed());
            let pause = self.pause(failures, failing, what.as_ref()).filter(|_| error.is_transient());
            let Some(pause) = pause else { return Err(error) };
            failures += 1;
            if let Some(on_retry) = &self.on_retry {
                on_retry(&Retry { message: error.to_string(), failures, elapsed, pause });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The pause after a failure that comes `failing` after the first one. None if the timeout has ended.
    fn pause(&self, failures: u32, failing: Duration, what: &str) -> Option<Duration> {
        let left = self.timeout.checked_sub(failing).filter(|left| !left.is_zero())?;
        Some(PAUSES.pause(failures, self.seed, &["store".into(), what.into()]).min(left))
    }
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

    async fn tried(most: Duration, failures: &[&'static str]) -> (Result<usize, Failure>, Vec<Retry>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = Arc::clone(&told);
        let policy =
            RetryPolicy::new(most, 1).on_retry(move |retry| tell.lock().expect("no test panicked").push(retry.clone()));
        let mut attempts = 0;
        let result = policy.run("a file", || {
            attempts += 1;
            let answer = failures.get(attempts - 1).map_or(Ok(attempts), |failure| Err(Failure(failure)));
            std::future::ready(answer)
        });
        let result = result.await;
        let told = told.lock().expect("no test panicked").clone();
        (result, told)
    }

    #[tokio::test]
    async fn transient_errors_are_retried_and_reported() {
        let (result, told) = tried(Duration::from_secs(600), &["busy"; 2]).await;
        assert_eq!(result, Ok(3));
        assert_eq!(told.iter().map(|retry| retry.failures).collect::<Vec<_>>(), [1, 2]);
        assert!(told[0].elapsed + told[0].pause <= told[1].elapsed, "{told:?}");
        let later = Retry { elapsed: Duration::from_millis(35_900), ..told[1].clone() };
        assert_eq!(later.to_string(), "busy; retrying for 35 s so far");
    }

    #[tokio::test]
    async fn other_errors_are_not_retried_and_without_a_timeout_none() {
        let (result, told) = tried(Duration::from_secs(600), &["forbidden", "busy"]).await;
        assert_eq!((result, told), (Err(Failure("forbidden")), Vec::new()));
        let (result, told) = tried(Duration::ZERO, &["busy"]).await;
        assert_eq!((result, told), (Err(Failure("busy")), Vec::new()));
    }

    /// The pauses if every attempt takes a millisecond, and the time of the last failure.
    fn back_off(most: Duration, seed: u64) -> (Vec<Duration>, Duration) {
        let policy = RetryPolicy::new(most, seed);
        let (mut all, mut waited) = (Vec::new(), Duration::from_millis(1));
        while let Some(pause) = policy.pause(all.len() as u32, waited, "a file") {
            all.push(pause);
            waited += pause + Duration::from_millis(1);
        }
        (all, waited)
    }

    #[test]
    fn retries_end_on_time() {
        for seed in 0..100 {
            let most = Duration::from_millis(1 + 977 * seed);
            let (all, waited) = back_off(most, seed);
            assert!((most..most + Duration::from_millis(2)).contains(&waited), "{waited:?} instead of {most:?}");
            assert!(all.len() < 30, "they grow: {all:?}");
        }
    }

    #[test]
    fn the_back_off_is_a_function_of_the_seed() {
        let most = Duration::from_secs(60);
        assert_eq!(back_off(most, 1), back_off(most, 1));
        assert_ne!(back_off(most, 1), back_off(most, 2));
    }
}
