//! The events of a job over connections that may break. After a break they continue with the event after the last one.

use std::pin::Pin;
use std::time::Duration;

use antiphon_transport::ReconnectPolicy;
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt as _};

use super::api::{Client, Watched};
use super::error::ClientError;
use super::notice::Notify;
use super::reconnect::Reconnect;

/// If a connection that lasted at least this long breaks, a new outage starts.
const LASTED: Duration = Duration::from_secs(10);

type Open = Pin<Box<dyn Stream<Item = Result<Watched, ClientError>> + Send>>;

/// The events of one job.
pub(crate) struct Events {
    client: Client,
    job: String,
    policy: ReconnectPolicy,
    /// The number of the last event.
    seen: u64,
    /// The open stream, and when it was opened.
    open: Option<(Instant, Open)>,
    /// The outage, from the first request until an event arrives.
    reconnect: Option<Reconnect>,
}

impl Events {
    /// The events with numbers above `after`.
    pub(crate) fn new(client: Client, job: &str, after: u64, policy: ReconnectPolicy) -> Self {
        Self { client, job: job.to_owned(), policy, seen: after, open: None, reconnect: None }
    }

    /// The next event. Cancelling this loses no event.
    ///
    /// # Errors
    /// The coordinator refuses the request, or is unreachable for longer than the policy allows.
    pub(crate) async fn next(&mut self, notify: &mut impl Notify) -> Result<Watched, ClientError> {
        loop {
            let error = match &mut self.open {
                None => {
                    let open = self.connect(notify).await?;
                    self.open = Some((Instant::now(), open));
                    continue;
                }
                Some((_, open)) => match open.next().await {
                    Some(Ok(watched)) => {
                        self.seen = watched.number;
                        if let Some(reconnect) = self.reconnect.take() {
                            reconnect.reconnected(notify)?;
                        }
                        return Ok(watched);
                    }
                    Some(Err(error)) => error,
                    None => ClientError::Unreachable(format!("the coordinator ended the events of {}", self.job)),
                },
            };
            self.lost(error, notify)?;
        }
    }

    async fn connect(&mut self, notify: &mut impl Notify) -> Result<Open, ClientError> {
        let Self { client, job, policy, seen, reconnect, .. } = self;
        let reconnect = reconnect.get_or_insert_with(|| Reconnect::new(*policy, job));
        let watch = |within| {
            let (client, job, seen) = (client.clone(), job.clone(), *seen);
            async move {
                let events: Open = Box::pin(client.within(within, client.watch(&job, seen)).await?);
                Ok(events)
            }
        };
        reconnect.until(watch, notify).await
    }

    /// Handles a broken connection. A short connection without an event counts as another failure of the same outage.
    fn lost(&mut self, error: ClientError, notify: &mut impl Notify) -> Result<(), ClientError> {
        let opened = self.open.take().map(|(opened, _)| opened);
        let lasted = opened.is_some_and(|opened| opened.elapsed() >= LASTED);
        if self.reconnect.as_ref().is_some_and(|reconnect| lasted || !reconnect.has_failed()) {
            self.reconnect = None;
        }
        let reconnect = self.reconnect.get_or_insert_with(|| Reconnect::new(self.policy, &self.job));
        reconnect.failed(error, notify)
    }
}
