//! The request to stop or suspend a job at the next turn boundary.

/// The requests so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StopRequest {
    asked: Option<Asked>,
    /// Whether the job stops without waiting for missing workers.
    now: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The job stops.
    Stop,
    /// The job stops here and resumes under the next coordinator.
    Suspend,
}

impl StopRequest {
    /// Requests a stop. With `now`, without waiting for missing workers.
    pub(super) fn stop(&mut self, now: bool) {
        self.asked = Some(Asked::Stop);
        self.now |= now;
    }

    /// Requests a suspension. An earlier request to stop still holds.
    pub(super) fn suspend(&mut self) {
        self.asked.get_or_insert(Asked::Suspend);
        self.now = true;
    }

    pub(super) fn is_stop(self) -> bool {
        self.asked == Some(Asked::Stop)
    }

    pub(super) fn is_suspend(self) -> bool {
        self.asked == Some(Asked::Suspend)
    }

    /// Whether the job stops without waiting for missing workers.
    pub(super) fn waits_for_no_worker(self) -> bool {
        self.now
    }
}
