//! The events of a job over connections that may break: after each break it goes on behind the last event that came.

use std::pin::Pin;
use std::time::Duration;

use anyhow::anyhow;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::{Stream, StreamExt as _};

use crate::client::{Client, Watched};
use crate::exit::{self, Exit, OrExit as _};
use crate::outage::Outage;

/// A connection that lasted so long was one: what comes after it is another outage.
const LASTED: Duration = Duration::from_secs(10);

type Events = Pin<Box<dyn Stream<Item = anyhow::Result<Watched>> + Send>>;

/// What there is to show.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events, so a box would only add an allocation to each")]
pub(super) enum News {
    /// An event of the job.
    Event(Watched),
    /// The coordinator is gone, for so long now.
    Unreachable { seconds: u64, error: String },
    /// It is there again, after so long.
    Reached { seconds: u64 },
}

/// Watches one job.
pub(super) struct Connection {
    client: Client,
    job: String,
    patience: Duration,
    /// The number of the last event that came.
    seen: u64,
    /// Since when, if it is open.
    events: Option<(Instant, Events)>,
    /// From the first try on, until an event comes.
    outage: Option<Outage>,
    /// An event that came while something else had to be said.
    next: Option<Watched>,
}

impl Connection {
    pub(super) fn new(client: Client, job: &str, after: u64, patience: Duration) -> Self {
        Self { client, job: job.to_owned(), patience, seen: after, events: None, outage: None, next: None }
    }

    /// What comes next. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The coordinator is gone for longer than there is patience for, or refuses.
    pub(super) async fn next(&mut self) -> anyhow::Result<News> {
        if let Some(watched) = self.next.take() {
            return Ok(News::Event(watched));
        }
        loop {
            let failed = match &mut self.events {
                Some((_, events)) => match events.next().await {
                    Some(Ok(watched)) => return Ok(self.came(watched)),
                    Some(Err(error)) => error,
                    None => unreachable(format!("the coordinator ended the events of {}", self.job)),
                },
                None => match self.open().await {
                    Some(Ok(events)) => {
                        self.events = Some((Instant::now(), events));
                        continue;
                    }
                    Some(Err(error)) => error,
                    None => return Ok(self.say()),
                },
            };
            if let Some(news) = self.lost(failed)? {
                return Ok(news);
            }
        }
    }

    /// Asks for the events, when it is time to; None when it is time to say that nobody is there.
    async fn open(&mut self) -> Option<anyhow::Result<Events>> {
        let now = Instant::now();
        let Self { client, job, seen, outage, patience, .. } = self;
        let outage = outage.get_or_insert_with(|| Outage::new(now, *patience));
        let attempt = async {
            sleep_until(outage.try_again()).await;
            let events = timeout(outage.within(Instant::now()), client.watch(job, *seen)).await;
            let events = events.unwrap_or_else(|_| Err(unreachable("the coordinator does not answer".to_owned())));
            events.map(|events| -> Events { Box::pin(events) })
        };
        tokio::select! {
            opened = attempt => Some(opened),
            () = sleep_until(outage.say_at()), if outage.has_failed() => None,
        }
    }

    fn came(&mut self, watched: Watched) -> News {
        self.seen = watched.number;
        match self.outage.take().filter(Outage::has_failed) {
            None => News::Event(watched),
            Some(outage) => {
                self.next = Some(watched);
                News::Reached { seconds: outage.seconds(Instant::now()) }
            }
        }
    }

    /// Notes that nobody is there, and decides whether to go on and whether to say so.
    fn lost(&mut self, error: anyhow::Error) -> anyhow::Result<Option<News>> {
        let opened = self.events.take().map(|(opened, _)| opened);
        if exit::of(&error) != Exit::Unreachable || self.patience.is_zero() {
            return Err(error);
        }
        let now = Instant::now();
        let is_another =
            |outage: &Outage| !outage.has_failed() || opened.is_some_and(|opened| now.duration_since(opened) >= LASTED);
        if opened.is_some() && self.outage.as_ref().is_some_and(is_another) {
            self.outage = None;
        }
        let outage = self.outage.get_or_insert_with(|| Outage::new(now, self.patience));
        let error = format!("{error:#}");
        if outage.failed(now, error.clone(), &self.job).is_none() {
            let seconds = outage.seconds(now);
            return Err(unreachable(format!("{error}; gave up after {seconds} s")));
        }
        let say = outage.say_at() <= now;
        Ok(say.then(|| self.say()))
    }

    /// That nobody is there, for so long now.
    fn say(&mut self) -> News {
        let now = Instant::now();
        let outage = self.outage.get_or_insert_with(|| Outage::new(now, self.patience));
        outage.said(now);
        News::Unreachable { seconds: outage.seconds(now), error: outage.error.clone() }
    }
}

fn unreachable(reason: String) -> anyhow::Error {
    Err::<(), _>(anyhow!(reason)).or_exit(Exit::Unreachable).expect_err("it is an error")
}
