//! How long a checkpoint stalls training.

use std::time::Duration;

use tokio::time::Instant;

/// The duration of the pending checkpoint, and how long it has stalled training.
#[derive(Debug, Clone, Copy)]
pub(super) struct StallTime {
    started: Instant,
    /// The time in which the head was snapshotted.
    head: Duration,
    /// The longest of the workers' snapshots.
    workers: Duration,
    /// The time in which turns waited for the checkpoint.
    turns: Duration,
    /// Since when a turn waits for it.
    waits: Option<Instant>,
}

impl StallTime {
    /// The stall time of a checkpoint that started at `started` and whose head was snapshotted until now.
    pub(super) fn since(started: Instant) -> Self {
        Self { started, head: started.elapsed(), workers: Duration::ZERO, turns: Duration::ZERO, waits: None }
    }

    /// Adds the time of a worker's snapshot.
    pub(super) fn add_worker(&mut self, snapshot: Duration) {
        self.workers = self.workers.max(snapshot);
    }

    /// Records whether a turn waits for the checkpoint.
    pub(super) fn note(&mut self, waits: bool) {
        match (waits, self.waits) {
            (true, None) => self.waits = Some(Instant::now()),
            (false, Some(since)) => {
                self.turns += since.elapsed();
                self.waits = None;
            }
            _ => {}
        }
    }

    /// The time since the start of the checkpoint.
    pub(super) fn taken(&self) -> Duration {
        self.started.elapsed()
    }

    /// The total time in which training was stalled.
    pub(super) fn stalled(mut self) -> Duration {
        self.note(false);
        self.head + self.workers + self.turns
    }
}
