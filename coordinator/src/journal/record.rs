//! The keys and JSON values of the journal. Every value except an event has a format version.
//!
//! ```text
//! term                       TermRecord: the newest term
//! job/<id>                   JobRecord: what was submitted
//! stop/<id>                  StopRecord: it was asked to stop
//! end/<id>                   EndRecord: how it ended
//! event/<id>/<number>        the event as it is sent; the number has 16 hexadecimal digits, so that keys sort by it
//! ```

use std::sync::Arc;

use antiphon_core::event::Finished;
use antiphon_core::ids::{JobId, JobName, RequestId, Term};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format version that this program reads and writes.
const VERSION: u64 = 2;

/// The key of the newest term.
pub(super) const TERM: &str = "term";

/// The newest term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TermRecord {
    pub(super) term: Term,
}

/// A submitted job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub job: JobId,
    /// Its name.
    pub name: JobName,
    /// Its number in the order of submission.
    pub order: u64,
    /// Seconds since 1970 at its submission, by the coordinator's clock.
    pub submitted: u64,
    /// The term of the checkpoint that it was submitted with, if any.
    pub after: Option<Term>,
    /// The URL of that checkpoint.
    pub resume: Option<String>,
    /// The client's id of the submission, which retries repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// The specification, as [`antiphon_core::spec::JobSpec::to_json`] writes it.
    pub specification: String,
}

impl JobRecord {
    /// The job's term under a coordinator of term `leader`. It is higher than under earlier coordinators, and higher
    /// than the term of the checkpoint that the job was submitted with.
    #[must_use]
    pub fn term_under(&self, leader: Term) -> Term {
        Self::term_after(self.after, leader)
    }

    /// As [`Self::term_under`], for a job that is submitted with a checkpoint of term `after`, or without a checkpoint.
    #[must_use]
    pub fn term_after(after: Option<Term>, leader: Term) -> Term {
        Term(after.unwrap_or_default().0.saturating_add(leader.0))
    }
}

/// One event, as it is persisted and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The number within the job, counted from 1.
    pub number: u64,
    /// The event as a JSON object on one line.
    pub json: Arc<str>,
}

/// The job was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StopRecord {}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndRecord {
    /// The term of the coordinator under which it ended.
    pub term: Term,
    /// The number of its last event.
    pub last_event: u64,
    /// The contents of its last event.
    pub finished: Finished,
    /// The time of its end in milliseconds since 1970, by the coordinator's clock.
    pub ended: u64,
}

/// A job in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The submission.
    pub record: JobRecord,
    /// Whether it was asked to stop.
    pub stop: bool,
    /// How it ended, if it has.
    pub end: Option<EndRecord>,
}

/// The key of a record of a job.
pub(super) fn key(kind: &str, job: &JobId) -> String {
    format!("{kind}/{job}")
}

/// The key of an event.
pub(super) fn event_key(job: &JobId, number: u64) -> String {
    format!("event/{job}/{number:016x}")
}

/// The number of an event, from its key.
pub(super) fn event_number(key: &[u8]) -> Option<u64> {
    let (_, number) = std::str::from_utf8(key).ok()?.rsplit_once('/')?;
    u64::from_str_radix(number, 16).ok()
}

/// A value in the format of this version.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut fields = serde_json::to_value(value).expect("the journal's values are plain JSON");
    fields["version"] = VERSION.into();
    fields.to_string().into_bytes()
}

/// Reads what [`encode`] wrote, or says what is wrong with it.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if value["version"] != VERSION {
        return Err(format!("its version is {}, but this program reads {VERSION}", value["version"]));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}
