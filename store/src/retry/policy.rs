//! How long an operation is retried, and who is told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use antiphon_core::backoff::Backoff;
use tokio::time::Instant;

use super::transient::Transient;

/// The pauses after failures.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(10) };

/// A failure after which the operation is done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// What went wrong, in words, with the object that it went wrong with.
    pub reason: String,
    /// Failures so far, this one among them.
    pub failures: u32,
    /// Time since the operation was begun.
    pub waited: Duration,
    /// The pause that follows.
    pub pause: Duration,
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; tried for {} s so far", self.reason, self.waited.as_secs())
    }
}

/// How long an operation is done again, and who is told.
#[derive(Clone)]
pub struct RetryPolicy {
    most: Duration,
    seed: u64,
    on_retry: Option<OnRetry>,
}

type OnRetry = Arc<dyn Fn(&Retry) + Send + Sync>;

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy").field("most", &self.most).field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl RetryPolicy {
    /// Every operation is done once.
    #[must_use]
    pub const fn none() -> Self {
        Self { most: Duration::ZERO, seed: 0, on_retry: None }
    }

    /// An operation is done again until `most` has passed since it first failed, which may be long after it was begun: an upload
    /// over a slow line is no failure. The lengths of the pauses are a function of
    /// `seed` and of what is done, so that clients with different seeds do not come back all at once.
    #[must_use]
    pub const fn new(most: Duration, seed: u64) -> Self {
        Self { most, seed, on_retry: None }
    }

    /// The same, for no longer than `most`.
    #[must_use]
    pub fn at_most(self, most: Duration) -> Self {
        Self { most: self.most.min(most), ..self }
    }

    /// The same, and `on_retry` is called after every failure that is followed by another attempt.
    #[must_use]
    pub fn on_retry(self, on_retry: impl Fn(&Retry) + Send + Sync + 'static) -> Self {
        Self { on_retry: Some(Arc::new(on_retry)), ..self }
    }

    /// Does `operation` until it succeeds, fails for good, or patience ends. `what` names it, for the lengths of the pauses.
    ///
    /// # Errors
    /// The last failure.
    pub async fn run<T, E, F>(&self, what: impl AsRef<str>, mut operation: impl FnMut() -> F) -> Result<T, E>
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
            if let Some(on_retry) = &self.on_retry {
                on_retry(&Retry { reason: error.to_string(), failures, waited, pause });
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
        let patience =
            RetryPolicy::new(most, 1).on_retry(move |retry| tell.lock().expect("nobody panicked").push(retry.clone()));
        let mut attempts = 0;
        let result = patience.run("a part", || {
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
        assert_eq!(told.iter().map(|retry| retry.failures).collect::<Vec<_>>(), [1, 2]);
        assert!(told[0].waited + told[0].pause <= told[1].waited, "{told:?}");
        let later = Retry { waited: Duration::from_millis(35_900), ..told[1].clone() };
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
        let patience = RetryPolicy::new(most, seed);
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
}
