//! Messages of workers that change nothing.

use antiphon_core::turn::Rejected;
use antiphon_proto::v1::RejectedReason;

/// A message that changed nothing, and the answer to it.
pub(super) struct Refusal {
    pub(super) reason: RejectedReason,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn malformed(message: impl ToString) -> Self {
        Self { reason: RejectedReason::Malformed, message: message.to_string() }
    }

    pub(super) fn unexpected(message: impl ToString) -> Self {
        Self { reason: RejectedReason::Unexpected, message: message.to_string() }
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        let reason = match &rejected {
            Rejected::StaleTerm { .. } => RejectedReason::StaleTerm,
            Rejected::AlreadyApplied { .. } => RejectedReason::AlreadyApplied,
            Rejected::StaleTurn { .. } => RejectedReason::StaleTurn,
            Rejected::StaleAttempt { .. } => RejectedReason::StaleAttempt,
            Rejected::StaleHead { .. } => RejectedReason::StaleHead,
            Rejected::NotYourTurn { .. } => RejectedReason::NotYourTurn,
            Rejected::NotAMember { .. }
            | Rejected::NoPlace { .. }
            | Rejected::NotGranted { .. }
            | Rejected::NotLearning { .. }
            | Rejected::Unexpected { .. } => RejectedReason::Unexpected,
            Rejected::Malformed { .. } => RejectedReason::Malformed,
        };
        Self { reason, message: rejected.to_string() }
    }
}
