//! The loop that tries again until a coordinator that is away answers.

use std::time::Duration;

use antiphon_transport::{Outage, ReconnectPolicy};
use tokio::time::{Instant, sleep_until};

use super::error::ClientError;
use super::notice::{Notice, Notify};

/// Requests to a coordinator that may be away, from the first one until one succeeds. Dropping a request loses nothing.
#[derive(Debug)]
pub(crate) struct Reconnect {
    policy: ReconnectPolicy,
    /// Clients of different names pause for different times.
    name: String,
    outage: Outage,
}

impl Reconnect {
    /// The time of the policy begins now.
    pub(crate) fn new(policy: ReconnectPolicy, name: &str) -> Self {
        Self { policy, name: name.to_owned(), outage: Outage::new(Instant::now(), policy) }
    }

    /// Sends a request until it is answered. `request` gets the time that it may take.
    ///
    /// # Errors
    /// The coordinator refuses, or does not answer before the policy's timeout.
    pub(crate) async fn until<T, F: Future<Output = Result<T, ClientError>>>(
        &mut self,
        mut request: impl FnMut(Duration) -> F,
        notify: &mut impl Notify,
    ) -> Result<T, ClientError> {
        loop {
            match self.answer(&mut request, notify).await? {
                Ok(answer) => return Ok(answer),
                Err(error) => self.failed(error, notify)?,
            }
        }
    }

    /// The answer to one request, which is sent when it is time to. Notices are due meanwhile, too.
    async fn answer<T, F: Future<Output = Result<T, ClientError>>>(
        &mut self,
        request: &mut impl FnMut(Duration) -> F,
        notify: &mut impl Notify,
    ) -> Result<Result<T, ClientError>, ClientError> {
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

    /// A request has failed: whether, and when, the next one is sent.
    ///
    /// # Errors
    /// None is: the error is the coordinator's refusal, or time is up.
    pub(crate) fn failed(&mut self, error: ClientError, notify: &mut impl Notify) -> Result<(), ClientError> {
        let ClientError::Unreachable(error) = error else { return Err(error) };
        let now = Instant::now();
        if !self.outage.failed(now, error.clone(), &self.name) {
            let seconds = self.outage.seconds(now);
            return Err(ClientError::Unreachable(match self.policy.is_once() {
                true => error,
                false => format!("{error}; gave up after {seconds} s"),
            }));
        }
        if self.outage.notice_at() <= now { self.notice(notify) } else { Ok(()) }
    }

    /// Notes that the coordinator has answered. If it was away, a notice says so.
    pub(crate) fn reconnected(&self, notify: &mut impl Notify) -> Result<(), ClientError> {
        if self.outage.has_failed() {
            notify.notify(Notice::Reconnected { seconds: self.outage.seconds(Instant::now()) })?;
        }
        Ok(())
    }

    /// Whether a request has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.outage.has_failed()
    }

    /// The error of the last request, if one has failed.
    pub(super) fn error(&self) -> Option<&str> {
        self.outage.has_failed().then(|| self.outage.error())
    }

    fn notice(&mut self, notify: &mut impl Notify) -> Result<(), ClientError> {
        let now = Instant::now();
        self.outage.noticed(now);
        let (seconds, error) = (self.outage.seconds(now), self.outage.error());
        Ok(notify.notify(Notice::Unreachable { seconds, error })?)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    /// Notices as text.
    #[derive(Default)]
    struct Printed(Vec<String>);

    impl Notify for Printed {
        fn notify(&mut self, notice: Notice<'_>) -> io::Result<()> {
            self.0.push(match notice {
                Notice::Unreachable { error, .. } => format!("unreachable: {error}"),
                Notice::Reconnected { .. } => "reconnected".to_owned(),
                Notice::Waiting { reason, .. } => format!("waiting: {reason}"),
            });
            Ok(())
        }
    }

    fn unreachable() -> Result<u32, ClientError> {
        Err(ClientError::Unreachable("refused".to_owned()))
    }

    #[tokio::test]
    async fn a_request_is_retried_until_it_is_answered() {
        let (mut printed, sent) = (Printed::default(), Cell::new(0));
        let mut reconnect = Reconnect::new(ReconnectPolicy::FOREVER.every(Duration::from_millis(1)), "test");
        let request = |_| {
            sent.set(sent.get() + 1);
            std::future::ready(if sent.get() < 4 { unreachable() } else { Ok(sent.get()) })
        };
        let answer = reconnect.until(request, &mut printed).await;
        assert!(matches!(answer, Ok(4)), "{answer:?}");
        reconnect.reconnected(&mut printed).expect("it is printed");
        assert_eq!(printed.0, ["unreachable: refused", "reconnected"], "one notice in ten seconds");
    }

    #[tokio::test]
    async fn a_refused_request_is_not_retried() {
        let mut printed = Printed::default();
        let mut reconnect = Reconnect::new(ReconnectPolicy::FOREVER, "test");
        let refuse = |_| std::future::ready(Err::<(), _>(ClientError::Refused("no such job".to_owned())));
        let refused = reconnect.until(refuse, &mut printed).await;
        assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
        assert!(printed.0.is_empty(), "{:?}", printed.0);
    }

    #[tokio::test]
    async fn an_error_after_retries_says_for_how_long() {
        for (policy, retried) in
            [(ReconnectPolicy::ONCE, false), (ReconnectPolicy::new(Duration::from_millis(1)), true)]
        {
            let mut reconnect = Reconnect::new(policy, "test");
            let error = reconnect.until(|_| std::future::ready(unreachable()), &mut Printed::default()).await;
            let error = error.expect_err("it is never answered").to_string();
            assert_eq!(error.starts_with("refused; gave up after "), retried, "{error}");
        }
    }
}
