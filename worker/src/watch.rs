//! The worker's stopwatch.

use antiphon_core::times::{Stopwatch, WorkerTimes};
use tokio::time::Instant;

/// Divides the time of the computing thread among its activities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    origin: Instant,
    stopwatch: Stopwatch<WorkerTimes>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now(), stopwatch: Stopwatch::default() }
    }

    /// Adds the time since the last lap to `activity`.
    pub(crate) fn lap(&mut self, activity: impl FnOnce(&mut WorkerTimes) -> &mut f64) {
        self.stopwatch.lap(self.origin.elapsed(), activity);
    }

    /// The times since the last call, which are then reset.
    pub(crate) fn take(&mut self) -> WorkerTimes {
        self.stopwatch.take()
    }
}
