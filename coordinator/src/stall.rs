//! Notices that this process stood still: a machine that was suspended, a debugger, a disk that held up every thread.

use std::time::Duration;

use tokio::time::Instant;

/// Whoever wakes up so much later than it meant to was held up, with all of this process.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// How often whoever waits wakes up to see whether it was.
const NAP: Duration = Duration::from_millis(500);

/// A wait in which it is noticed that this process stood still: what others said meanwhile is yet to be read, so nobody is to be
/// judged by their silence.
#[derive(Debug, Clone, Copy)]
pub struct Nap {
    until: Instant,
}

impl Nap {
    /// Begins to wait.
    #[must_use]
    pub fn begin() -> Self {
        Self { until: Instant::now() + NAP }
    }

    /// Wakes up at `deadline`, or when the nap is over.
    pub async fn or_until(self, deadline: Option<Instant>) {
        tokio::time::sleep_until(deadline.map_or(self.until, |deadline| deadline.min(self.until))).await;
    }

    /// Whether the wait, which ends now, was longer than it could be, whatever has ended it.
    #[must_use]
    pub fn was_too_long(self) -> bool {
        self.until.elapsed() >= STOOD_STILL
    }
}
