//! The status of a job: what it does, what it waits for, how it ended.

use antiphon_core::event::{FinalState, Finished, JobEvent};
use antiphon_core::turn::{Outcome, Waiting};

use super::Job;
use super::contract::{JobState, JobStatus, STOPPED};

impl Job {
    /// What the job waits for, if it waits.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let registered = |modality: &_| self.membership.registered(modality);
        let waiting = self.turns.machine.waiting(self.context.now(), registered)?;
        Some(Waiting { reason: self.with_store_errors(waiting.reason), ..waiting })
    }

    /// The activity, followed by the store errors of the workers and of this coordinator.
    fn with_store_errors(&self, mut activity: String) -> String {
        if self.stop.is_stop() {
            activity.insert_str(0, "asked to stop; ");
        }
        let errors = self.membership.store_errors().chain(self.checkpoints.store_error());
        errors.fold(activity, |activity, error| format!("{activity}; {error}"))
    }

    /// The current activity, and the worker that it waits for.
    fn activity(&self) -> String {
        let evaluating = self.evaluations.activity(&self.turns);
        self.with_store_errors(evaluating.unwrap_or_else(|| self.turns.machine.activity()))
    }

    /// Publishes the status, if it has changed.
    pub(super) fn report(&self) {
        let machine = &self.turns.machine;
        let (state, reason) = match (machine.outcome(), self.waiting()) {
            (Some(Outcome::Succeeded), _) => (JobState::Succeeded, String::new()),
            (Some(Outcome::Stopped), _) if self.stop.is_suspend() => {
                (JobState::Waiting, "suspended until a coordinator runs again".to_owned())
            }
            (Some(Outcome::Stopped), _) => (JobState::Stopped, STOPPED.to_owned()),
            (Some(Outcome::Failed { reason }), _) => (JobState::Failed, reason.clone()),
            (None, Some(waiting)) => (JobState::Waiting, waiting.reason),
            (None, None) => (JobState::Running, self.activity()),
        };
        let status = JobStatus {
            state,
            reason,
            since: machine.granted().map(|at| self.context.instant(at)),
            turn: self.turns.turn(),
            turns: self.turns.planned(),
            checkpoint: self.newest_url(),
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }

    /// Appends the last events of the job.
    pub(super) fn finish(&mut self) {
        self.emit_times();
        let (job, turn, checkpoint) = (self.context.id.clone(), self.turns.turn(), self.newest_url());
        let (state, reason) = match self.turns.machine.outcome() {
            Some(Outcome::Stopped) if self.stop.is_suspend() => {
                return self.context.emit(&JobEvent::Suspended { job, turn, checkpoint });
            }
            Some(Outcome::Succeeded) => (FinalState::Succeeded, None),
            Some(Outcome::Stopped) | None => (FinalState::Stopped, None),
            Some(Outcome::Failed { reason }) => (FinalState::Failed, Some(reason.clone())),
        };
        self.context.emit(&JobEvent::Finished(Finished {
            turn,
            turns: self.turns.planned(),
            checkpoint,
            digest: self.checkpoints.newest().map(|saved| saved.digest.clone()),
            best: self.checkpoints.best(),
            evaluation: self.evaluations.test_report().cloned(),
            ..Finished::new(job, state, reason)
        }));
    }

    /// Emits a `times` event.
    pub(super) fn emit_times(&mut self) {
        if let Some(times) = self.times.event(self.context.id.clone(), self.turns.turn()) {
            self.context.emit(&times);
        }
    }

    fn newest_url(&self) -> Option<String> {
        self.checkpoints.newest().map(|saved| saved.url.clone())
    }
}
