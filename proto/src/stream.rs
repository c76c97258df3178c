//! The envelopes of the training stream: the message in each, and its job.

use antiphon_core::ids::JobId;

use crate::error::{WireError, out_of_range, required};
use crate::v1::{self, coordinator_message, worker_message};
use crate::{ids, v1::worker_message::Message};

/// The longest `store_error` of a heartbeat in bytes: a job's status shows it.
pub const STORE_ERROR_LIMIT: usize = 1024;

/// The longest `reason` of `failed` in bytes: a job's status and events show it.
pub const REASON_LIMIT: usize = 8192;

/// The message in a worker's envelope, with its job; None for `register` and the heartbeat of a free worker. Names are
/// checked; tensors and the rest are checked by the job, which knows their shapes.
///
/// # Errors
/// If the envelope is empty or a name in it is invalid.
pub fn open(envelope: v1::WorkerMessage) -> Result<(Option<JobId>, Message), WireError> {
    let message = required("worker_message.message", envelope.message)?;
    match &message {
        Message::Heartbeat(v1::Heartbeat { store_error, .. }) => {
            check_text("heartbeat.store_error", store_error, STORE_ERROR_LIMIT, char::is_control)?;
        }
        Message::Failed(v1::Failed { reason, .. }) => {
            check_text("failed.reason", reason, REASON_LIMIT, is_control_within_lines)?;
        }
        _ => {}
    }
    let job = match &message {
        Message::Register(_) => None,
        Message::Heartbeat(heartbeat) if heartbeat.job.is_empty() => None,
        Message::Heartbeat(heartbeat) => Some(ids::name("heartbeat.job", &heartbeat.job)?),
        Message::Prepared(prepared) => Some(ids::name("prepared.job", &prepared.job)?),
        Message::Contribution(contribution) => {
            Some(ids::turn_ref("contribution.turn", contribution.turn.as_ref())?.job)
        }
        Message::Logits(logits) => Some(ids::name("logits.job", &logits.job)?),
        Message::FilesSaved(saved) => Some(ids::name("files_saved.job", &saved.job)?),
        Message::Failed(failed) => Some(ids::name("failed.job", &failed.job)?),
        Message::Released(released) => Some(ids::name("released.job", &released.job)?),
        Message::Learned(learned) => Some(ids::turn_ref("learned.turn", learned.turn.as_ref())?.job),
        Message::Leaving(leaving) => Some(ids::name("leaving.job", &leaving.job)?),
        // The assembler of the stream has consumed the chunks of messages.
        Message::Chunk(_) => return Err(WireError::Missing { field: "the message of `chunk`".to_owned() }),
    };
    Ok((job, message))
}

/// Text that is shown to users unchanged.
fn check_text(field: &str, text: &str, limit: usize, is_banned: fn(char) -> bool) -> Result<(), WireError> {
    if text.len() > limit {
        let rule = format!("a text of at most {limit} bytes");
        return Err(out_of_range(field, format!("{} bytes long", text.len()), rule));
    }
    match text.chars().find(|c| is_banned(*c)) {
        Some(control) => Err(out_of_range(field, format!("a text with {control:?}"), "no control characters")),
        None => Ok(()),
    }
}

/// An error of data or weights may take several lines.
fn is_control_within_lines(c: char) -> bool {
    c.is_control() && c != '\n'
}

/// A message shortened to the `store_error` of a heartbeat, in one line.
#[must_use]
pub fn store_error(message: &str) -> String {
    shortened(message, STORE_ERROR_LIMIT, char::is_control)
}

/// A message shortened to the `reason` of `failed`.
#[must_use]
pub fn reason(message: &str) -> String {
    shortened(message, REASON_LIMIT, is_control_within_lines)
}

fn shortened(message: &str, limit: usize, is_banned: fn(char) -> bool) -> String {
    let mut short = String::new();
    for c in message.chars().map(|c| if is_banned(c) { ' ' } else { c }) {
        if short.len() + c.len_utf8() > limit {
            break;
        }
        short.push(c);
    }
    short
}

/// The message in a coordinator's envelope.
///
/// # Errors
/// If the envelope is empty.
pub fn open_coordinator(envelope: v1::CoordinatorMessage) -> Result<coordinator_message::Message, WireError> {
    required("coordinator_message.message", envelope.message)
}

/// The subject of a worker's message, for the answer if it is rejected.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// Its job. None if it names no job or an invalid job id.
    pub job: Option<JobId>,
    term: u64,
    turn: Option<v1::TurnRef>,
    answered: bool,
}

impl Subject {
    /// The subject of `message`.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        let mut turn = None;
        let (job, term) = match message {
            Message::Register(_) => ("", 0),
            Message::Heartbeat(heartbeat) => (heartbeat.job.as_str(), 0),
            Message::Prepared(prepared) => (prepared.job.as_str(), prepared.term),
            Message::Contribution(contribution) => {
                turn.clone_from(&contribution.turn);
                contribution.turn.as_ref().map_or(("", 0), |turn| (turn.job.as_str(), turn.term))
            }
            Message::Logits(logits) => (logits.job.as_str(), logits.term),
            Message::FilesSaved(saved) => (saved.job.as_str(), saved.term),
            Message::Failed(failed) => (failed.job.as_str(), failed.term),
            Message::Released(released) => (released.job.as_str(), 0),
            Message::Learned(learned) => {
                turn.clone_from(&learned.turn);
                learned.turn.as_ref().map_or(("", 0), |turn| (turn.job.as_str(), turn.term))
            }
            Message::Leaving(leaving) => (leaving.job.as_str(), leaving.term),
            Message::Chunk(_) => ("", 0),
        };
        let job = JobId::try_from(job).ok();
        Self {
            turn: turn.filter(|_| job.is_some()),
            job,
            term,
            answered: !matches!(message, Message::Failed(_) | Message::Leaving(_)),
        }
    }

    /// The subject of an envelope without a message.
    #[must_use]
    pub fn nothing() -> Self {
        Self { job: None, term: 0, turn: None, answered: true }
    }

    /// Whether a rejection of the message may be sent.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The answer to a rejected message. None for `leaving`, after which the worker does not read, and for `failed`: a
    /// worker may answer a rejection with `failed`, and the exchange would never end.
    #[must_use]
    pub fn rejected(self, reason: v1::RejectedReason, message: String) -> Option<v1::Rejected> {
        let job = self.job.map(|job| job.to_string()).unwrap_or_default();
        self.answered.then(|| v1::Rejected { reason: reason.into(), message, turn: self.turn, job, term: self.term })
    }
}

impl From<worker_message::Message> for v1::WorkerMessage {
    fn from(message: worker_message::Message) -> Self {
        Self { message: Some(message) }
    }
}

impl From<coordinator_message::Message> for v1::CoordinatorMessage {
    fn from(message: coordinator_message::Message) -> Self {
        Self { message: Some(message) }
    }
}
