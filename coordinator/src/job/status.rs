//! What people are told of a job: what it does, what it waits for, how it ended.

use antiphon_core::event::{FinalState, Finished, JobEvent};
use antiphon_core::ids::Turn;
use antiphon_core::time::Time;
use antiphon_core::turn::{Outcome, Waiting};

use super::contract::{JobState, JobStatus, STOPPED};
use super::{Asked, Job, Member, resume};

impl Job {
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let waiting = self.machine.waiting(self.now(), |modality| self.workers.registered(modality))?;
        Some(Waiting { reason: self.with_trouble(waiting.reason), ..waiting })
    }

    /// What is going on, and beside it what trouble there is with the store: the workers', and this coordinator's own.
    pub(super) fn with_trouble(&self, mut activity: String) -> String {
        if self.asked == Some(Asked::Stop) {
            activity.insert_str(0, "asked to stop; ");
        }
        for (worker, Member { modality, trouble, .. }) in &self.members {
            if let Some(trouble) = trouble.told() {
                activity += &format!("; `{modality}` worker `{worker}`: {trouble}");
            }
        }
        self.trouble.told().into_iter().fold(activity, |activity, trouble| format!("{activity}; {trouble}"))
    }

    /// Turns that the head has taken.
    pub(super) fn turn(&self) -> Turn {
        self.reached.unwrap_or(self.machine.position().turn)
    }

    /// What is being done, and whose answer it waits for.
    pub(super) fn activity(&self) -> String {
        let activity = match &self.evaluation {
            Some(evaluation) => evaluation.activity(self.turn(), &self.machine),
            None => self.machine.activity(),
        };
        self.with_trouble(activity)
    }

    /// Publishes the status, if it has changed.
    pub(super) fn report(&self) {
        let waiting = self.waiting();
        let (state, reason) = match (self.machine.outcome(), waiting) {
            (Some(Outcome::Succeeded), _) => (JobState::Succeeded, String::new()),
            (Some(Outcome::Stopped), _) if self.asked == Some(Asked::Suspend) => {
                (JobState::Waiting, "suspended until a coordinator is there again".to_owned())
            }
            (Some(Outcome::Stopped), _) => (JobState::Stopped, STOPPED.to_owned()),
            (Some(Outcome::Failed { reason }), _) => (JobState::Failed, reason.clone()),
            (None, Some(waiting)) => (JobState::Waiting, waiting.reason),
            (None, None) => (JobState::Running, self.activity()),
        };
        let since = self.machine.granted().map(|at| self.origin + at.since(Time(0)).to_std());
        let status = JobStatus {
            state,
            reason,
            since,
            turn: self.turn(),
            turns: self.turns_planned(),
            checkpoint: self.newest.as_ref().map(|saved| saved.url.clone()),
        };
        self.status.send_if_modified(|old| {
            let changed = *old != status;
            *old = status;
            changed
        });
    }

    pub(super) fn finish(&mut self) {
        self.emit_times();
        if let (Some(Outcome::Stopped), Some(Asked::Suspend)) = (self.machine.outcome(), self.asked) {
            let (turn, checkpoint) = (self.turn(), self.newest.as_ref().map(|saved| saved.url.clone()));
            return self.emit(&JobEvent::Suspended { job: self.id.clone(), turn, checkpoint });
        }
        let (state, reason) = match self.machine.outcome() {
            Some(Outcome::Succeeded) => (FinalState::Succeeded, None),
            Some(Outcome::Stopped) | None => (FinalState::Stopped, None),
            Some(Outcome::Failed { reason }) => (FinalState::Failed, Some(reason.clone())),
        };
        // As the newest that was written knows it: one that was only cut is none.
        let best = self.newest.as_ref().and_then(|newest| newest.best);
        let best = best.map(|best| resume::best_of(&self.store, best));
        self.emit(&JobEvent::Finished(Finished {
            job: self.id.clone(),
            state,
            reason,
            turn: self.turn(),
            turns: self.turns_planned(),
            checkpoint: self.newest.as_ref().map(|saved| saved.url.clone()),
            digest: self.newest.as_ref().map(|saved| saved.digest.clone()),
            best,
            evaluation: self.test_report.clone(),
        }));
    }
}
