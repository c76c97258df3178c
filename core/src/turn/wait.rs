//! A wait, and when it is told of.

use serde::{Deserialize, Serialize};

use crate::time::{Span, Time};

/// A job that waits says so after this, and again whenever it has waited twice as long.
const FIRST_REPORT: Span = Span::from_secs(2);
/// But says so again after this.
const LATEST_REPORT: Span = Span::from_secs(60);

/// A wait that is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wait {
    pub(super) since: Time,
    pub(super) reported: Time,
}

impl Wait {
    pub(super) fn begun(now: Time) -> Self {
        Self { since: now, reported: now }
    }

    /// When it is told of next.
    pub(super) fn report(self) -> Time {
        self.reported + self.reported.since(self.since).clamp(FIRST_REPORT, LATEST_REPORT)
    }
}
