//! What a job was asked to do at the next turn boundary.

/// Requests to end, so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StopRequest {
    asked: Option<Asked>,
    /// The job ends without workers that are not there.
    now: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To end.
    Stop,
    /// To end here, and to resume under the next coordinator.
    Suspend,
}

impl StopRequest {
    /// The job is to stop; `now`, without workers that are not there.
    pub(super) fn stop(&mut self, now: bool) {
        self.asked = Some(Asked::Stop);
        self.now |= now;
    }

    /// The job is to be suspended. A request to stop that came before is not overruled.
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

    /// Whether the job is to end without workers that are not there.
    pub(super) fn waits_for_no_worker(self) -> bool {
        self.now
    }
}
