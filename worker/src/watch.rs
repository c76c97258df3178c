//! The worker's stopwatch.

use antiphon_core::times::{Stopwatch, WorkerTimes};
use tokio::time::Instant;

/// Shares out the time of the computing thread among what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    origin: Instant,
    stopwatch: Stopwatch<WorkerTimes>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now(), stopwatch: Stopwatch::default() }
    }

    /// The time since the last lap went into `activity`.
    pub(crate) fn lap(&mut self, activity: impl FnOnce(&mut WorkerTimes) -> &mut f64) {
        self.stopwatch.lap(self.origin.elapsed(), activity);
    }

    /// What has been shared out since this was last asked.
    pub(crate) fn take(&mut self) -> WorkerTimes {
        self.stopwatch.take()
    }
}
