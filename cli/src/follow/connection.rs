//! The events of a job over connections that may break: after each break it goes on behind the last event that came.

use std::pin::Pin;
use std::time::Duration;

use antiphon_core::rng;
use anyhow::anyhow;
use tokio::time::{Instant, sleep_until};
use tokio_stream::{Stream, StreamExt as _};

use crate::client::{Client, Watched};
use crate::exit::{self, Exit, OrExit as _};

/// The pauses between tries begin with this and double.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest of them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lasted so long was one: what comes after it is another outage.
const LASTED: Duration = Duration::from_secs(10);
/// How often it is said again that nobody is there.
const SAY_AGAIN: Duration = Duration::from_secs(10);

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
    outage: Option<Outage>,
    /// An event that came while something else had to be said.
    next: Option<Watched>,
}

/// Nobody is there.
struct Outage {
    since: Instant,
    tries: u32,
    try_again: Instant,
    /// When it was said last.
    said: Instant,
}

impl Connection {
    pub(super) fn new(client: Client, job: &str, patience: Duration) -> Self {
        Self { client, job: job.to_owned(), patience, seen: 0, events: None, outage: None, next: None }
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
                    None => Err::<(), _>(anyhow!("the coordinator ended the events of {}", self.job))
                        .or_exit(Exit::Unreachable)
                        .expect_err("it is an error"),
                },
                None => {
                    if let Some(outage) = &self.outage {
                        sleep_until(outage.try_again).await;
                    }
                    match self.client.watch(&self.job, self.seen).await {
                        Ok(events) => {
                            self.events = Some((Instant::now(), Box::pin(events)));
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            if let Some(news) = self.lost(failed)? {
                return Ok(news);
            }
        }
    }

    fn came(&mut self, watched: Watched) -> News {
        self.seen = watched.number;
        match self.outage.take() {
            None => News::Event(watched),
            Some(outage) => {
                self.next = Some(watched);
                News::Reached { seconds: outage.since.elapsed().as_secs() }
            }
        }
    }

    /// Notes that nobody is there, and decides whether to go on and whether to say so.
    fn lost(&mut self, error: anyhow::Error) -> anyhow::Result<Option<News>> {
        let opened = self.events.take().map(|(opened, _)| opened);
        if exit::of(&error) != Exit::Unreachable || self.patience.is_zero() {
            return Err(error);
        }
        if opened.is_some_and(|opened| opened.elapsed() >= LASTED) {
            self.outage = None;
        }
        let now = Instant::now();
        let is_new = self.outage.is_none();
        let outage = self.outage.get_or_insert(Outage { since: now, tries: 0, try_again: now, said: now });
        let gone = now.duration_since(outage.since);
        if gone >= self.patience {
            let seconds = gone.as_secs();
            return Err(anyhow!("{error:#}; gave up after {seconds} s")).or_exit(Exit::Unreachable);
        }
        let pause = pause(outage.tries, &self.job);
        outage.try_again = now + pause.min(self.patience - gone);
        outage.tries += 1;
        let say = is_new || now.duration_since(outage.said) >= SAY_AGAIN;
        if say {
            outage.said = now;
        }
        Ok(say.then(|| News::Unreachable { seconds: gone.as_secs(), error: format!("{error:#}") }))
    }
}

/// How long to wait before the next try: each client somewhat differently, so that they do not come all at once.
fn pause(tries: u32, job: &str) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE);
    let mut random = rng::stream(std::process::id().into(), &["reconnect".into(), job.into(), u64::from(tries).into()]);
    longest.mul_f64(0.5 + 0.5 * rng::uniform(&mut random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ() {
        for (tries, longest) in [(0, 250), (1, 500), (4, 4000), (5, 5000), (400, 5000)] {
            let longest = Duration::from_millis(longest);
            let pauses: Vec<Duration> = (0..20).map(|job| pause(tries, &format!("job-{job}"))).collect();
            assert!(pauses.iter().all(|pause| (longest / 2..=longest).contains(pause)), "{tries}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{tries}: {pauses:?}");
        }
    }
}
