//! The answer to a rejected message of a worker, which changes nothing.

use antiphon_core::ids::Term;
use antiphon_core::turn::Rejected;
use antiphon_proto::v1::RejectedReason;

/// A message that was rejected, and the answer to it.
#[derive(Debug)]
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

impl Refusal {
    /// The sender was evicted from its slot, or never had one.
    pub(super) fn no_slot() -> Self {
        Self::unexpected("the sender has no slot in this job")
    }

    /// Checks that a message belongs to the job's term.
    ///
    /// # Errors
    /// If it belongs to another term.
    pub(super) fn check_term(given: Term, current: Term) -> Result<(), Self> {
        if given == current {
            return Ok(());
        }
        Err(Rejected::StaleTerm { given: given.0, current: current.0 }.into())
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
            Rejected::NoSlot { .. }
            | Rejected::SlotTaken { .. }
            | Rejected::NotGranted { .. }
            | Rejected::NotLearning { .. }
            | Rejected::Unexpected { .. } => RejectedReason::Unexpected,
            Rejected::Malformed { .. } => RejectedReason::Malformed,
        };
        Self { reason, message: rejected.to_string() }
    }
}
