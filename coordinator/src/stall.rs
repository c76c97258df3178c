//! Detects that this process stalled: the machine was suspended, a debugger stopped it, or a disk blocked every thread.

use std::time::Duration;

use tokio::time::Instant;

/// A wait that ends this much too late means that the whole process stalled.
const STALLED: Duration = Duration::from_secs(1);
/// The interval at which a waiting task checks for a stall.
const INTERVAL: Duration = Duration::from_millis(500);

/// A wait that detects a stall of this process. Messages from that time are still unread, so no lease may expire
/// because of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StallDetector {
    until: Instant,
}

impl StallDetector {
    /// Starts a wait.
    #[must_use]
    pub(crate) fn start() -> Self {
        Self { until: Instant::now() + INTERVAL }
    }

    /// Waits until `deadline`, or until the interval ends.
    pub(crate) async fn wait_until(self, deadline: Option<Instant>) {
        tokio::time::sleep_until(deadline.map_or(self.until, |deadline| deadline.min(self.until))).await;
    }

    /// Whether the wait, which ends now, was longer than possible without a stall.
    #[must_use]
    pub(crate) fn has_stalled(self) -> bool {
        self.until.elapsed() >= STALLED
    }
}
