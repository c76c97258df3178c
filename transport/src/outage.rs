//! Outages of a coordinator: when to retry, when to report, and when to give up.
//!
//! Owns no connection and no clock: its caller sends requests, waits and reports.

use std::time::Duration;

use antiphon_core::backoff::Backoff;
use tokio::time::Instant;

/// The timeout of an attempt. Together with the longest pause it is at most [`NOTICE_INTERVAL`], so there is a whole
/// attempt between two notices.
const TRY: Duration = Duration::from_secs(5);
/// The timeout of an attempt without retries.
const ONLY_TRY: Duration = Duration::from_secs(30);
/// The smallest timeout of the last attempt, even if it exceeds the policy's timeout.
const LAST_TRY: Duration = Duration::from_millis(250);
/// The interval between reports of an outage.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(10);

/// How long requests to an unreachable coordinator are retried, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconnectPolicy {
    timeout: Duration,
    backoff: Backoff,
}

impl ReconnectPolicy {
    /// No retries.
    pub const ONCE: Self = Self::new(Duration::ZERO);
    /// Retries without a time limit.
    pub const FOREVER: Self = Self::new(Duration::MAX);

    /// Retries for this long, with pauses that grow to five seconds.
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        let backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };
        Self { timeout, backoff }
    }

    /// The same policy with pauses of this length.
    #[must_use]
    pub const fn every(self, pause: Duration) -> Self {
        Self { backoff: Backoff { first: pause, longest: pause }, ..self }
    }

    /// For how long.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether there are no retries.
    #[must_use]
    pub const fn is_once(&self) -> bool {
        self.timeout.is_zero()
    }
}

/// A possible outage, starting with the first attempt.
#[derive(Debug)]
pub(crate) struct Outage {
    policy: ReconnectPolicy,
    since: Instant,
    failures: u32,
    next_try: Instant,
    /// The time of the last report.
    noticed: Option<Instant>,
    /// The error of the last attempt.
    error: String,
}

impl Outage {
    /// An outage that started at `since`.
    pub(crate) fn new(since: Instant, policy: ReconnectPolicy) -> Self {
        Self { policy, since, failures: 0, next_try: since, noticed: None, error: String::new() }
    }

    /// How long it has lasted, in whole seconds.
    pub(crate) fn seconds(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_secs()
    }

    /// Whether an attempt has failed. Until then the coordinator is not known to be unreachable.
    pub(crate) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// The time of the next attempt.
    pub(crate) fn next_try(&self) -> Instant {
        self.next_try
    }

    /// The timeout of an attempt that starts now.
    pub(crate) fn try_timeout(&self, now: Instant) -> Duration {
        match self.policy.is_once() {
            true => ONLY_TRY,
            false => self.policy.timeout.saturating_sub(now.duration_since(self.since)).clamp(LAST_TRY, TRY),
        }
    }

    /// Records a failed attempt, and returns whether another one follows. Clients with different `name`s pause for
    /// different times, so that they do not overload a coordinator that returns.
    pub(crate) fn failed(&mut self, now: Instant, error: String, name: &str) -> bool {
        self.error = error;
        let left = self.policy.timeout.checked_sub(now.duration_since(self.since)).filter(|left| !left.is_zero());
        let Some(left) = left else { return false };
        let pause =
            self.policy.backoff.pause(self.failures, std::process::id().into(), &["outage".into(), name.into()]);
        self.next_try = now + pause.min(left);
        self.failures = self.failures.saturating_add(1);
        true
    }

    /// The error of the last attempt.
    pub(crate) fn error(&self) -> &str {
        &self.error
    }

    /// The time of the next report.
    pub(crate) fn notice_at(&self) -> Instant {
        self.noticed.map_or(self.since, |noticed| noticed + NOTICE_INTERVAL)
    }

    /// Records a report.
    pub(crate) fn noticed(&mut self, now: Instant) {
        self.noticed = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_and_notices_come_until_the_timeout_and_no_later() {
        let started = Instant::now();
        let (timeout, mut tries, mut notices) = (Duration::from_secs(60), 0, Vec::new());
        let mut outage = Outage::new(started, ReconnectPolicy::new(timeout));
        let mut now = started;
        loop {
            // The coordinator does not answer before the timeout of an attempt.
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
        let took = now - started;
        assert!((timeout..=timeout + LAST_TRY).contains(&took), "{took:?}");
        assert!((6..20).contains(&tries), "{tries} tries");
        assert!((4..=7).contains(&notices.len()), "{notices:?}");
        assert_eq!(outage.error(), "silence");
        assert!(!Outage::new(now, ReconnectPolicy::ONCE).failed(now, String::new(), ""), "there is one try");
    }
}
