//! The loop that retries until an unreachable coordinator answers.
//!
//! Owns no connection: its caller makes each request, and reports the outage. `Outage` says when the next request is
//! sent, when a notice is due, and when the loop gives up.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::outage::{Outage, ReconnectPolicy};

/// An error of a request to a coordinator that may be unreachable.
pub trait RequestError {
    /// The message, if the same request may succeed when the coordinator is back. Other errors are not retried.
    fn outage(&self) -> Option<String>;
}

/// A report that the coordinator is still unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice<'a> {
    /// How long it has been unreachable, in seconds.
    pub seconds: u64,
    /// The error of the last request.
    pub error: &'a str,
}

/// The error after which no further request is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended<E> {
    /// The error of the last request.
    pub error: E,
    /// How long the coordinator was unreachable, in seconds, if the timeout ended. None if the error is no outage.
    pub seconds: Option<u64>,
}

impl<E> From<E> for Ended<E> {
    fn from(error: E) -> Self {
        Self { error, seconds: None }
    }
}

/// Requests to a coordinator that may be unreachable, until one succeeds. Dropping a request loses nothing.
#[derive(Debug)]
pub struct Reconnect {
    /// Clients of different names pause for different times.
    name: String,
    outage: Outage,
}

impl Reconnect {
    /// The timeout of the policy starts now.
    #[must_use]
    pub fn new(policy: ReconnectPolicy, name: &str) -> Self {
        Self { name: name.to_owned(), outage: Outage::new(Instant::now(), policy) }
    }

    /// The same, without a notice of the first failure. The next notice is due after the usual interval.
    #[must_use]
    pub fn without_first_notice(mut self) -> Self {
        self.outage.noticed(Instant::now());
        self
    }

    /// Sends a request until it is answered. `request` gets the time that it may take.
    ///
    /// # Errors
    /// If the error is no outage, the coordinator does not answer before the policy's timeout, or `notify` fails.
    pub async fn until<T, E: RequestError, F: Future<Output = Result<T, E>>>(
        &mut self,
        mut request: impl FnMut(Duration) -> F,
        mut notify: impl FnMut(Notice<'_>) -> Result<(), E>,
    ) -> Result<T, Ended<E>> {
        loop {
            match self.answer(&mut request, &mut notify).await? {
                Ok(answer) => return Ok(answer),
                Err(error) => self.failed(error, &mut notify)?,
            }
        }
    }

    /// The answer to one request, which is sent when it is due. Notices are sent in the meantime, too.
    async fn answer<T, E, F: Future<Output = Result<T, E>>>(
        &mut self,
        request: &mut impl FnMut(Duration) -> F,
        notify: &mut impl FnMut(Notice<'_>) -> Result<(), E>,
    ) -> Result<Result<T, E>, E> {
        while Instant::now() < self.outage.next_try() {
            if self.outage.has_failed() && self.outage.notice_at() <= self.outage.next_try() {
                sleep_until(self.outage.notice_at()).await;
                self.notice(notify)?;
            } else {
                sleep_until(self.outage.next_try()).await;
            }
        }
        let mut answer = std::pin::pin!(request(self.outage.try_timeout(Instant::now())));
        loop {
            tokio::select! {
                answer = &mut answer => return Ok(answer),
                () = sleep_until(self.outage.notice_at()), if self.outage.has_failed() => self.notice(notify)?,
            }
        }
    }

    /// Records a failed request. [`Self::until`] sends the next one when it is due.
    ///
    /// # Errors
    /// If no request follows because the error is no outage or the timeout ended, or if `notify` fails.
    pub fn failed<E: RequestError>(
        &mut self,
        error: E,
        mut notify: impl FnMut(Notice<'_>) -> Result<(), E>,
    ) -> Result<(), Ended<E>> {
        let Some(reason) = error.outage() else { return Err(error.into()) };
        let now = Instant::now();
        tracing::debug!(reason, "a request did not reach the coordinator");
        if !self.outage.failed(now, reason, &self.name) {
            return Err(Ended { error, seconds: Some(self.outage.seconds(now)) });
        }
        if self.outage.notice_at() <= now { Ok(self.notice(&mut notify)?) } else { Ok(()) }
    }

    /// Whether a request has failed. Until then the coordinator is not known to be unreachable.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.outage.has_failed()
    }

    /// How many seconds the coordinator has been unreachable, if a request has failed.
    #[must_use]
    pub fn seconds(&self) -> Option<u64> {
        self.has_failed().then(|| self.outage.seconds(Instant::now()))
    }

    /// The error of the last request, if one has failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.has_failed().then(|| self.outage.error())
    }

    fn notice<E>(&mut self, notify: &mut impl FnMut(Notice<'_>) -> Result<(), E>) -> Result<(), E> {
        let now = Instant::now();
        self.outage.noticed(now);
        notify(Notice { seconds: self.outage.seconds(now), error: self.outage.error() })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A request that is refused, or does not reach a coordinator.
    #[derive(Debug, PartialEq, Eq)]
    enum Failed {
        Refused,
        Away,
    }

    impl RequestError for Failed {
        fn outage(&self) -> Option<String> {
            (*self == Self::Away).then(|| "silence".to_owned())
        }
    }

    #[tokio::test]
    async fn a_request_is_retried_until_it_is_answered() {
        let every_millisecond = ReconnectPolicy::FOREVER.every(Duration::from_millis(1));
        for (silent, expected) in [(false, 1), (true, 0)] {
            let (mut notices, sent) = (0, Cell::new(0));
            let mut reconnect = Reconnect::new(every_millisecond, "test");
            if silent {
                reconnect = reconnect.without_first_notice();
            }
            let request = |_| {
                sent.set(sent.get() + 1);
                std::future::ready(if sent.get() < 4 { Err(Failed::Away) } else { Ok(sent.get()) })
            };
            let notify = |notice: Notice<'_>| {
                assert_eq!(notice, Notice { seconds: 0, error: "silence" });
                notices += 1;
                Ok(())
            };
            assert_eq!(reconnect.until(request, notify).await, Ok(4));
            assert_eq!(notices, expected, "one notice in ten seconds");
            assert_eq!((reconnect.seconds(), reconnect.error()), (Some(0), Some("silence")));
        }
    }

    #[tokio::test]
    async fn an_error_that_is_no_outage_is_not_retried() {
        let mut reconnect = Reconnect::new(ReconnectPolicy::FOREVER, "test");
        let ended = reconnect.until(|_| std::future::ready(Err::<(), _>(Failed::Refused)), |_| Ok(())).await;
        assert_eq!(ended, Err(Ended { error: Failed::Refused, seconds: None }));
        assert_eq!(reconnect.seconds(), None, "the coordinator answered");
    }

    #[tokio::test]
    async fn retries_end_with_the_last_error_when_time_is_up() {
        for policy in [ReconnectPolicy::ONCE, ReconnectPolicy::new(Duration::from_millis(1))] {
            let mut reconnect = Reconnect::new(policy, "test");
            let ended = reconnect.until(|_| std::future::ready(Err::<(), _>(Failed::Away)), |_| Ok(())).await;
            assert_eq!(ended, Err(Ended { error: Failed::Away, seconds: Some(0) }));
        }
    }
}
