//! For how long a checkpoint stalls training.

use std::time::Duration;

use tokio::time::Instant;

/// How long the pending checkpoint takes, and for how long it stalled training.
#[derive(Debug, Clone, Copy)]
pub(super) struct StallTime {
    begun: Instant,
    /// While the head was snapshotted.
    head: Duration,
    /// The longest of the workers' snapshots.
    workers: Duration,
    /// While turns waited for the checkpoint.
    turns: Duration,
    /// Since when a turn waits for it.
    waits: Option<Instant>,
}

impl StallTime {
    /// Of a checkpoint that was begun at `begun`, and whose head is snapshotted now.
    pub(super) fn since(begun: Instant) -> Self {
        Self { begun, head: begun.elapsed(), workers: Duration::ZERO, turns: Duration::ZERO, waits: None }
    }

    /// A worker's snapshot took this long.
    pub(super) fn add_worker(&mut self, snapshot: Duration) {
        self.workers = self.workers.max(snapshot);
    }

    /// Notes whether a turn waits for the checkpoint.
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

    /// From the beginning of the checkpoint until now.
    pub(super) fn taken(&self) -> Duration {
        self.begun.elapsed()
    }

    /// For how long training was stalled, in all.
    pub(super) fn stalled(mut self) -> Duration {
        self.note(false);
        self.head + self.workers + self.turns
    }
}
