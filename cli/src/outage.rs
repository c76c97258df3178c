//! A coordinator that is away: when to try again, when to say so, and when to give up.

use std::time::Duration;

use antiphon_core::backoff::Backoff;
use tokio::time::Instant;

/// The pauses between tries.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };
/// How long a try may take before nobody is there. With the longest pause it is no longer than `SAY_AGAIN`, so that there is a whole
/// try between two remarks.
const TRY: Duration = Duration::from_secs(5);
/// How long the only try may take, where there is no patience.
const ONLY_TRY: Duration = Duration::from_secs(30);
/// The last try may take so long although time is up.
const LAST_TRY: Duration = Duration::from_millis(250);
/// How often it is said that nobody is there.
pub(crate) const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Nobody is there.
#[derive(Debug)]
pub(crate) struct Outage {
    since: Instant,
    patience: Duration,
    failures: u32,
    try_again: Instant,
    /// When it was said last.
    said: Option<Instant>,
    /// The last try's.
    pub(crate) error: String,
}

impl Outage {
    /// One that began at `since`, and is waited out for so long.
    pub(crate) fn new(since: Instant, patience: Duration) -> Self {
        Self { since, patience, failures: 0, try_again: since, said: None, error: String::new() }
    }

    /// For how long so far, in whole seconds.
    pub(crate) fn seconds(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_secs()
    }

    /// Whether a try has failed: until then nobody knows that nobody is there.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// When it is time for the next try.
    pub(crate) fn try_again(&self) -> Instant {
        self.try_again
    }

    /// How long a try that begins now may take.
    pub(crate) fn within(&self, now: Instant) -> Duration {
        match self.patience.is_zero() {
            true => ONLY_TRY,
            false => self.patience.saturating_sub(now.duration_since(self.since)).clamp(LAST_TRY, TRY),
        }
    }

    /// A try has failed. None if it was the last one. The pauses are those of whoever is `name`.
    pub(crate) fn failed(&mut self, now: Instant, error: String, name: &str) -> Option<()> {
        self.error = error;
        let left = self.patience.checked_sub(now.duration_since(self.since)).filter(|left| !left.is_zero())?;
        let pause = PAUSES.pause(self.failures, std::process::id().into(), &["outage".into(), name.into()]);
        self.try_again = now + pause.min(left);
        self.failures = self.failures.saturating_add(1);
        Some(())
    }

    /// When it is to be said that nobody is there.
    pub(crate) fn say_at(&self) -> Instant {
        self.said.map_or(self.since, |said| said + SAY_AGAIN)
    }

    /// It is said now.
    pub(crate) fn said(&mut self, now: Instant) {
        self.said = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_and_remarks_come_until_patience_ends_and_no_later() {
        let begun = Instant::now();
        let (patience, mut tries, mut remarks) = (Duration::from_secs(60), 0, Vec::new());
        let mut outage = Outage::new(begun, patience);
        let mut now = begun;
        loop {
            // Whoever is asked says nothing, for as long as it is let.
            now = now.max(outage.try_again()) + outage.within(now.max(outage.try_again()));
            tries += 1;
            if outage.failed(now, "silence".to_owned(), "somebody").is_none() {
                break;
            }
            if outage.say_at() <= now {
                outage.said(now);
                remarks.push(outage.seconds(now));
            }
        }
        let took = now - begun;
        assert!((patience..=patience + LAST_TRY).contains(&took), "{took:?}");
        assert!((6..20).contains(&tries), "{tries} tries");
        assert!((4..=7).contains(&remarks.len()), "{remarks:?}");
        assert!(Outage::new(now, Duration::ZERO).failed(now, String::new(), "").is_none(), "once, without patience");
    }
}
