//! Notices that this process stalled: the machine was suspended, a debugger held it, or a disk held up every thread.

use std::time::Duration;

use tokio::time::Instant;

/// A wait that ends so much later than it was meant to was held up, with all of this process.
const STALLED: Duration = Duration::from_secs(1);
/// How often a task that waits wakes up to see whether it was.
const INTERVAL: Duration = Duration::from_millis(500);

/// A wait that notices that this process stalled. What others said meanwhile is yet to be read, so no lease expires
/// because of their silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StallDetector {
    until: Instant,
}

impl StallDetector {
    /// Begins to wait.
    #[must_use]
    pub(crate) fn start() -> Self {
        Self { until: Instant::now() + INTERVAL }
    }

    /// Wakes up at `deadline`, or when the interval is over.
    pub(crate) async fn wait_until(self, deadline: Option<Instant>) {
        tokio::time::sleep_until(deadline.map_or(self.until, |deadline| deadline.min(self.until))).await;
    }

    /// Whether the wait, which ends now, was longer than it could be, whatever has ended it.
    #[must_use]
    pub(crate) fn has_stalled(self) -> bool {
        self.until.elapsed() >= STALLED
    }
}
