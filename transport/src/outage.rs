//! A coordinator that is away: when to try again, when to report it, and when to give up.
//!
//! Owns no connection and no clock: its caller tries, waits and reports.

use std::time::Duration;

use antiphon_core::backoff::Backoff;
use tokio::time::Instant;

/// How long a try may take until the coordinator counts as away. With the longest pause it is no longer than
/// [`NOTICE_INTERVAL`], so that there is a whole try between two notices.
const TRY: Duration = Duration::from_secs(5);
/// How long the only try may take, where none follows.
const ONLY_TRY: Duration = Duration::from_secs(30);
/// The last try may take so long although time is up.
const LAST_TRY: Duration = Duration::from_millis(250);
/// How often it is reported that the coordinator is away.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(10);

/// For how long a coordinator that is away is tried again, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconnectPolicy {
    timeout: Duration,
    backoff: Backoff,
}

impl ReconnectPolicy {
    /// One try, and none after it.
    pub const ONCE: Self = Self::new(Duration::ZERO);
    /// Without end.
    pub const FOREVER: Self = Self::new(Duration::MAX);

    /// For so long, with pauses that grow to five seconds.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        let backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };
        Self { timeout, backoff }
    }

    /// With pauses of this length.
    #[must_use]
    pub const fn every(self, pause: Duration) -> Self {
        Self { backoff: Backoff { first: pause, longest: pause }, ..self }
    }

    /// For how long.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether there is one try only.
    #[must_use]
    pub const fn is_once(&self) -> bool {
        self.timeout.is_zero()
    }
}

/// A coordinator that may be away, from the first try on.
#[derive(Debug)]
pub struct Outage {
    policy: ReconnectPolicy,
    since: Instant,
    failures: u32,
    next_try: Instant,
    /// When it was reported last.
    noticed: Option<Instant>,
    /// The last try's.
    error: String,
}

impl Outage {
    /// One that began at `since`.
    #[must_use]
    pub fn new(since: Instant, policy: ReconnectPolicy) -> Self {
        Self { policy, since, failures: 0, next_try: since, noticed: None, error: String::new() }
    }

    /// For how long so far, in whole seconds.
    #[must_use]
    pub fn seconds(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_secs()
    }

    /// Whether a try has failed: until then the coordinator is not known to be away.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// When it is time for the next try.
    #[must_use]
    pub fn next_try(&self) -> Instant {
        self.next_try
    }

    /// How long a try that begins now may take.
    #[must_use]
    pub fn try_timeout(&self, now: Instant) -> Duration {
        match self.policy.is_once() {
            true => ONLY_TRY,
            false => self.policy.timeout.saturating_sub(now.duration_since(self.since)).clamp(LAST_TRY, TRY),
        }
    }

    /// A try has failed. Whether another one follows. Clients of different `name` pause for different times, so that a
    /// coordinator that comes back is not overrun.
    #[must_use]
    pub fn failed(&mut self, now: Instant, error: String, name: &str) -> bool {
        self.error = error;
        let left = self.policy.timeout.checked_sub(now.duration_since(self.since)).filter(|left| !left.is_zero());
        let Some(left) = left else { return false };
        let pause =
            self.policy.backoff.pause(self.failures, std::process::id().into(), &["outage".into(), name.into()]);
        self.next_try = now + pause.min(left);
        self.failures = self.failures.saturating_add(1);
        true
    }

    /// The error of the last try.
    #[must_use]
    pub fn error(&self) -> &str {
        &self.error
    }

    /// When it is to be reported that the coordinator is away.
    #[must_use]
    pub fn notice_at(&self) -> Instant {
        self.noticed.map_or(self.since, |noticed| noticed + NOTICE_INTERVAL)
    }

    /// It is reported now.
    pub fn noticed(&mut self, now: Instant) {
        self.noticed = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_and_notices_come_until_the_timeout_and_no_later() {
        let begun = Instant::now();
        let (timeout, mut tries, mut notices) = (Duration::from_secs(60), 0, Vec::new());
        let mut outage = Outage::new(begun, ReconnectPolicy::new(timeout));
        let mut now = begun;
        loop {
            // The coordinator does not answer, for as long as a try may take.
            now = now.max(outage.next_try()) + outage.try_timeout(now.max(outage.next_try()));
            tries += 1;
            if !outage.failed(now, "silence".to_owned(), "client") {
                break;
            }
            if outage.notice_at() <= now {
                outage.noticed(now);
                notices.push(outage.seconds(now));
            }
        }
        let took = now - begun;
        assert!((timeout..=timeout + LAST_TRY).contains(&took), "{took:?}");
        assert!((6..20).contains(&tries), "{tries} tries");
        assert!((4..=7).contains(&notices.len()), "{notices:?}");
        assert_eq!(outage.error(), "silence");
        assert!(!Outage::new(now, ReconnectPolicy::ONCE).failed(now, String::new(), ""), "there is one try");
    }
}
