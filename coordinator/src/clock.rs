//! The one place where this crate reads the time of day. No result of training depends on it. Waits are measured by
//! tokio's clock, which tests can pause.

use std::time::{Duration, SystemTime};

/// Time since 1970, by this machine's clock: for ids that are never given twice.
#[expect(
    clippy::disallowed_methods,
    reason = "an id has to differ from those of earlier processes, which only a clock knows"
)]
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The same in milliseconds: for the times that people are told.
pub(crate) fn milliseconds() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}
