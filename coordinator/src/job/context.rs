//! What every owner of a part of a job's state knows about the job. It does not change while the job runs.

use antiphon_core::event::JobEvent;
use antiphon_core::ids::{JobId, ModalityName, Term};
use antiphon_core::time::Time;
use tokio::time::Instant;
use tracing::error;

use super::specification::Specification;
use crate::events::EventLog;

/// The job's identity, its specification, its clock and its event log.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) id: JobId,
    pub(super) term: Term,
    pub(super) spec: Specification,
    pub(super) modalities: Vec<ModalityName>,
    pub(super) events: EventLog,
    /// The zero of the turn machine's clock.
    pub(super) origin: Instant,
}

impl Context {
    /// The time on the turn machine's clock.
    pub(super) fn now(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The instant at which the turn machine's clock shows `at`.
    pub(super) fn instant(&self, at: Time) -> Instant {
        self.origin + at.since(Time(0)).to_std()
    }

    /// Appends an event to the job's log.
    pub(super) fn emit(&self, event: &JobEvent) {
        if let Err(error) = self.events.append(event) {
            error!(%error, "an event of the job cannot be appended and is lost");
        }
    }
}
