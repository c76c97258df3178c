//! Retries a client's requests until the coordinator answers. `antiphon_transport::Reconnect` is the loop; this module
//! adds the client's errors and notices.

use std::time::Duration;

use antiphon_transport::ReconnectPolicy;
use antiphon_transport::reconnect::{self, Ended, RequestError};

use super::error::ClientError;
use super::notice::{Notice, Notify};

/// The retries of a request, from the first attempt until one succeeds. Dropping a request loses nothing.
#[derive(Debug)]
pub(crate) struct Reconnect {
    policy: ReconnectPolicy,
    requests: reconnect::Reconnect,
}

impl RequestError for ClientError {
    fn outage(&self) -> Option<String> {
        match self {
            Self::Unreachable(error) => Some(error.clone()),
            Self::Address(_) | Self::TimedOut(_) | Self::Refused(_) | Self::Failed(_) | Self::Output(_) => None,
        }
    }
}

impl Reconnect {
    /// Starts the time of the policy. Clients with different `name`s back off for different times.
    pub(crate) fn new(policy: ReconnectPolicy, name: &str) -> Self {
        Self { policy, requests: reconnect::Reconnect::new(policy, name) }
    }

    /// Sends a request until it is answered. `request` receives the time limit of the attempt.
    ///
    /// # Errors
    /// The coordinator refuses the request, or does not answer before the policy's timeout.
    pub(crate) async fn until<T, F: Future<Output = Result<T, ClientError>>>(
        &mut self,
        request: impl FnMut(Duration) -> F,
        notify: &mut impl Notify,
    ) -> Result<T, ClientError> {
        let answer = self.requests.until(request, |notice| tell(notify, notice)).await;
        answer.map_err(|ended| self.last_error(ended))
    }

    /// Notes that a request has failed, and checks whether it is retried.
    ///
    /// # Errors
    /// The request is not retried: the coordinator refused it, or the timeout is over.
    pub(crate) fn failed(&mut self, error: ClientError, notify: &mut impl Notify) -> Result<(), ClientError> {
        let failed = self.requests.failed(error, |notice| tell(notify, notice));
        failed.map_err(|ended| self.last_error(ended))
    }

    /// Notes that the coordinator has answered. If it was unreachable before, a notice says so.
    pub(crate) fn reconnected(&self, notify: &mut impl Notify) -> Result<(), ClientError> {
        match self.requests.seconds() {
            Some(seconds) => Ok(notify.notify(Notice::Reconnected { seconds })?),
            None => Ok(()),
        }
    }

    /// Whether a request has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.requests.has_failed()
    }

    /// The error of the last request, if one has failed.
    pub(super) fn error(&self) -> Option<&str> {
        self.requests.error()
    }

    /// The last error. If the request was retried, it says for how long.
    fn last_error(&self, Ended { error, seconds }: Ended<ClientError>) -> ClientError {
        match (error, seconds) {
            (ClientError::Unreachable(error), Some(seconds)) if !self.policy.is_once() => {
                ClientError::Unreachable(format!("{error}; gave up after {seconds} s"))
            }
            (error, _) => error,
        }
    }
}

fn tell(notify: &mut impl Notify, notice: reconnect::Notice<'_>) -> Result<(), ClientError> {
    let reconnect::Notice { seconds, error } = notice;
    Ok(notify.notify(Notice::Unreachable { seconds, error })?)
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
