//! The envelopes of the training stream: which message it is, and whose.

use antiphon_core::ids::JobId;

use crate::error::{WireError, out_of_range, required};
use crate::v1::{self, coordinator_message, worker_message};
use crate::{ids, v1::worker_message::Message};

/// Bytes that a heartbeat's `trouble` may have: it becomes part of a job's status.
pub const TROUBLE_LIMIT: usize = 1024;

/// Bytes that the `reason` of `failed` may have: it becomes part of a job's status, its events and its end.
pub const REASON_LIMIT: usize = 8192;

/// The message in a worker's envelope, with the job that it is about; None for `register` and the heartbeat of a free
/// worker. Names are checked; tensors and the rest are left to the job, which knows their shapes.
///
/// # Errors
/// The envelope is empty, or a name in it is not one.
pub fn open(envelope: v1::WorkerMessage) -> Result<(Option<JobId>, Message), WireError> {
    let message = required("worker_message.message", envelope.message)?;
    match &message {
        Message::Heartbeat(v1::Heartbeat { trouble, .. }) => {
            check_words("heartbeat.trouble", trouble, TROUBLE_LIMIT, char::is_control)?;
        }
        Message::Failed(v1::Failed { reason, .. }) => {
            check_words("failed.reason", reason, REASON_LIMIT, is_control_within_lines)?;
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
        Message::PartSaved(saved) => Some(ids::name("part_saved.job", &saved.job)?),
        Message::Failed(failed) => Some(ids::name("failed.job", &failed.job)?),
        Message::Released(released) => Some(ids::name("released.job", &released.job)?),
        Message::Learned(learned) => Some(ids::turn_ref("learned.turn", learned.turn.as_ref())?.job),
        Message::Leaving(leaving) => Some(ids::name("leaving.job", &leaving.job)?),
        // The assembler of the stream takes all that belong to a message.
        Message::Chunk(_) => return Err(WireError::Missing { field: "the message of `chunk`".to_owned() }),
    };
    Ok((job, message))
}

/// People are shown it as it is.
fn check_words(field: &str, words: &str, limit: usize, is_banned: fn(char) -> bool) -> Result<(), WireError> {
    if words.len() > limit {
        let rule = format!("a text of {limit} bytes at most");
        return Err(out_of_range(field, format!("{} bytes long", words.len()), rule));
    }
    match words.chars().find(|c| is_banned(*c)) {
        Some(control) => Err(out_of_range(field, format!("a text with {control:?}"), "no control characters")),
        None => Ok(()),
    }
}

/// What is wrong with data or weights may take several lines.
fn is_control_within_lines(c: char) -> bool {
    c.is_control() && c != '\n'
}

/// As much of some words as a heartbeat's `trouble` may have, in one line.
#[must_use]
pub fn trouble(words: &str) -> String {
    fitting(words, TROUBLE_LIMIT, char::is_control)
}

/// As much of some words as the `reason` of `failed` may have.
#[must_use]
pub fn reason(words: &str) -> String {
    fitting(words, REASON_LIMIT, is_control_within_lines)
}

fn fitting(words: &str, limit: usize, is_banned: fn(char) -> bool) -> String {
    let mut fitting = String::new();
    for c in words.chars().map(|c| if is_banned(c) { ' ' } else { c }) {
        if fitting.len() + c.len_utf8() > limit {
            break;
        }
        fitting.push(c);
    }
    fitting
}

/// The message in a coordinator's envelope.
///
/// # Errors
/// The envelope is empty.
pub fn open_coordinator(envelope: v1::CoordinatorMessage) -> Result<coordinator_message::Message, WireError> {
    required("coordinator_message.message", envelope.message)
}

/// What a worker's message is about, for the answer should it be rejected.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The job that it names; None if it names none, or what it names is no job id.
    pub job: Option<JobId>,
    term: u64,
    turn: Option<v1::TurnRef>,
    answered: bool,
}

impl Subject {
    /// What `message` is about.
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
            Message::PartSaved(saved) => (saved.job.as_str(), saved.term),
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

    /// What an envelope without a message is about.
    #[must_use]
    pub fn nothing() -> Self {
        Self { job: None, term: 0, turn: None, answered: true }
    }

    /// Whether the message can be answered at all.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The answer to the message: it changed nothing. None to `leaving`, after which nobody listens, nor to `failed`, because a worker may answer a rejection with it, and
    /// the two would go on without end.
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
