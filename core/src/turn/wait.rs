//! A wait, and when it is reported.

use serde::{Deserialize, Serialize};

use crate::time::{Span, Time};

/// A wait is reported after this time, and again each time its length has doubled.
const FIRST_REPORT: Span = Span::from_secs(2);
/// The longest time between two reports.
const LATEST_REPORT: Span = Span::from_secs(60);

/// A wait that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wait {
    pub(super) since: Time,
    pub(super) reported: Time,
}

impl Wait {
    pub(super) fn starting(now: Time) -> Self {
        Self { since: now, reported: now }
    }

    /// When it is reported next.
    pub(super) fn report(self) -> Time {
        self.reported + self.reported.since(self.since).clamp(FIRST_REPORT, LATEST_REPORT)
    }
}
