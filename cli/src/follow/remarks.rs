//! Prints notices before the first event of the job.

use std::io;

use crate::client::{Notice, Notify};
use crate::output::{self, Format};

/// Prints notices about one job: as text to standard error, because standard output holds ids and events; as JSON to
/// standard output.
#[derive(Debug, Clone)]
pub(crate) struct Remarks {
    pub(crate) format: Format,
    /// Id of the job; None if it has none yet.
    pub(crate) job: Option<String>,
    /// Seconds for which an unreachable coordinator is retried.
    pub(crate) timeout: u64,
}

impl Notify for Remarks {
    fn notify(&mut self, notice: Notice<'_>) -> io::Result<()> {
        let Self { format, job, timeout } = self;
        match format {
            Format::Json => output::json(&as_event(job.as_deref(), notice)),
            Format::Text => output::complain(&match notice {
                Notice::Unreachable { seconds: 0, error } => format!("{error}; retrying for up to {timeout} s"),
                Notice::Unreachable { seconds, error } => {
                    format!("{error}; retrying for up to {timeout} s, {seconds} s so far")
                }
                Notice::Reconnected { seconds } => format!("reached the coordinator after {seconds} s"),
                Notice::Waiting { seconds, reason } => format!("waiting ({seconds} s): {reason}"),
            }),
        }
    }
}

/// A notice as a JSON object.
pub(super) fn as_event(job: Option<&str>, notice: Notice<'_>) -> serde_json::Value {
    match notice {
        Notice::Unreachable { seconds, error } => {
            serde_json::json!({"event": "unreachable", "job": job, "seconds": seconds, "error": error})
        }
        Notice::Reconnected { seconds } => serde_json::json!({"event": "reconnected", "job": job, "seconds": seconds}),
        Notice::Waiting { seconds, reason } => {
            serde_json::json!({"event": "waiting", "job": job, "reason": reason, "seconds": seconds})
        }
    }
}
