//! The user asks the job to stop, gracefully or at once, and later to resume from its newest checkpoint.

use antiphon_core::ids::Turn;
use antiphon_core::turn::Outcome;

use crate::coordinator::Inbound;
use crate::event::Event;
use crate::world::World;

impl World<'_> {
    /// The user asks, and sometimes repeats the request.
    pub(super) fn ask_to_stop(&mut self) {
        let times = 1 + u64::from(self.stops.coin());
        let mut at = self.now;
        for _ in 0..times {
            let now = self.stops.coin();
            at = at + self.stops.span(self.ttl());
            self.foresee(at, Event::AskedToStop { now });
        }
    }

    /// A request reaches the coordinator. It is dropped if there is no coordinator.
    pub(super) fn asked_to_stop(&mut self, now: bool) -> Result<(), String> {
        if self.coordinator_is_down {
            return Ok(());
        }
        self.seen.insert("the user asked to stop");
        if self.asked.is_some() {
            self.seen.insert("a job was asked twice to stop");
        }
        self.asked = Some(self.asked.unwrap_or(false) || now);
        self.inbox.push_back(Inbound::Stop { now }.into());
        self.serve()
    }

    /// The job has stopped and left its checkpoint, from which it resumes later.
    pub(super) fn has_stopped(&mut self) -> Result<(), String> {
        let Some(at_once) = self.asked else { return Err("the job stopped unasked".to_owned()) };
        let of_this_term = |event: &&Event| match event {
            Event::Stores { manifest, .. } => manifest.term == self.coordinator.term,
            Event::Written { term, .. } => *term == self.coordinator.term,
            _ => false,
        };
        if let Some(event) = self.events.values().find(of_this_term) {
            return Err(format!("the job stopped while a checkpoint was being written: {event:?}"));
        }
        let (turn, told) = (self.coordinator.machine.position().turn, self.coordinator.newest);
        let newest = self.store.newest().map(|newest| newest.turn());
        if newest != told {
            return Err(format!("the job stopped with checkpoint {told:?}, and {newest:?} is the newest"));
        }
        let lost = newest.unwrap_or(Turn(0)) < turn;
        if lost && !at_once {
            return Err(format!("the job was to leave a checkpoint of turn {turn}, and the newest is {newest:?}"));
        }
        self.seen.insert(if lost { "a job stopped at once" } else { "a job stopped with all that it had learned" });
        self.coordinator.report.outcome = None;
        self.coordinator_goes(false);
        Ok(())
    }

    /// Whether the job is over and its coordinator is to be left alone.
    pub(super) fn is_over(&mut self) -> Result<bool, String> {
        match &self.coordinator.report.outcome {
            None => Ok(false),
            Some(Outcome::Stopped) => self.has_stopped().map(|()| false),
            Some(_) => Ok(true),
        }
    }
}
