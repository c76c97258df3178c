//! The time of day, which this crate reads only here. No result of training depends on it. Waits use tokio's clock,
//! which tests can pause.

use std::time::{Duration, SystemTime};

/// The time since 1970, by this machine's clock, for unique ids.
#[expect(
    clippy::disallowed_methods,
    reason = "ids must differ from those of earlier processes, which requires a clock"
)]
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The time since 1970 in milliseconds, for display.
pub(crate) fn milliseconds() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}
