//! Notices about a client that waits for its coordinator.

use std::io;
use std::pin::pin;

use antiphon_transport::outage::NOTICE_INTERVAL;
use tokio::time::{Instant, sleep_until};

use super::error::ClientError;

/// Why a client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice<'a> {
    /// The coordinator has been unreachable for this time.
    Unreachable { seconds: u64, error: &'a str },
    /// The coordinator is reachable again after this time.
    Reconnected { seconds: u64 },
    /// The coordinator is reachable, but has not answered for this time.
    Waiting { seconds: u64, reason: &'a str },
}

/// A receiver of notices.
pub(crate) trait Notify {
    /// Prints a notice, or stores it.
    fn notify(&mut self, notice: Notice<'_>) -> io::Result<()>;
}

/// Drops all notices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silent;

impl Notify for Silent {
    fn notify(&mut self, _notice: Notice<'_>) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for the answer of a coordinator that is reachable but slow. A notice gives the reason every ten seconds.
pub(crate) async fn while_waiting<T>(
    reason: &str,
    answer: impl Future<Output = Result<T, ClientError>>,
    notify: &mut impl Notify,
) -> Result<T, ClientError> {
    let started = Instant::now();
    let mut answer = pin!(answer);
    let mut notice_at = started + NOTICE_INTERVAL;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep_until(notice_at) => {
                notice_at += NOTICE_INTERVAL;
                notify.notify(Notice::Waiting { seconds: started.elapsed().as_secs(), reason })?;
            }
        }
    }
}
