//! The envelopes of the training stream: which message it is, and whose.

use antiphon_core::ids::JobId;

use crate::error::{WireError, required};
use crate::v1::{self, coordinator_message, worker_message};
use crate::{ids, v1::worker_message::Message};

/// The message in a worker's envelope, with the job that it is about; None for `register` and the heartbeat of a free
/// worker. Names are checked; tensors and the rest are left to the job, which knows their shapes.
///
/// # Errors
/// The envelope is empty, or a name in it is not one.
pub fn open(envelope: v1::WorkerMessage) -> Result<(Option<JobId>, Message), WireError> {
    let message = required("worker_message.message", envelope.message)?;
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
    };
    Ok((job, message))
}

/// The message in a coordinator's envelope.
///
/// # Errors
/// The envelope is empty.
pub fn open_coordinator(envelope: v1::CoordinatorMessage) -> Result<coordinator_message::Message, WireError> {
    required("coordinator_message.message", envelope.message)
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
