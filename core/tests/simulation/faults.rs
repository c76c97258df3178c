//! The faults of a simulation and their times: after any event, whatever the workers and the coordinator are doing.

use std::collections::BTreeMap;

use antiphon_core::ids::Term;
use antiphon_core::rng::{self, Stream};
use antiphon_core::time::Span;
use serde::{Deserialize, Serialize};

use crate::coordinator::{Coordinator, Inbound, Refusal, Sent};
use crate::event::Event;
use crate::noise;
use crate::store::Manifest;
use crate::world::World;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fault {
    /// A worker dies; another one of its modality comes some time later.
    Dies,
    /// A worker pauses for longer than its lease, and continues where it was.
    Pauses,
    /// A worker makes no progress for longer than a turn's deadline, but sends heartbeats.
    Hangs,
    /// A connection is lost with everything that is on its way; the worker dials again.
    Disconnects,
    /// A worker is asked to stop.
    Leaves,
    /// The store does not answer the worker's next load or save.
    StoreFails,
    /// Writing manifests takes long.
    ManifestsTakeLong,
    /// The coordinator dies, and another one takes over from the store.
    CoordinatorDies,
    /// As [`Self::CoordinatorDies`], but the first coordinator wakes up in the term of the next one and continues.
    CoordinatorIsReplaced,
    /// The coordinator stalls for a while.
    CoordinatorPauses,
    /// The user asks the job to stop, and later to resume.
    Stops,
}

impl Fault {
    /// All faults but requests to stop.
    const ALL: [Self; 10] = [
        Self::Dies,
        Self::Pauses,
        Self::Hangs,
        Self::Disconnects,
        Self::Leaves,
        Self::StoreFails,
        Self::ManifestsTakeLong,
        Self::CoordinatorDies,
        Self::CoordinatorIsReplaced,
        Self::CoordinatorPauses,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dies => "a worker dies",
            Self::Pauses => "a worker pauses",
            Self::Hangs => "a worker hangs",
            Self::Disconnects => "a connection is lost",
            Self::Leaves => "a worker leaves",
            Self::StoreFails => "the store fails",
            Self::ManifestsTakeLong => "manifests take long",
            Self::CoordinatorDies => "the coordinator dies",
            Self::CoordinatorIsReplaced => "the coordinator is replaced",
            Self::CoordinatorPauses => "the coordinator pauses",
            Self::Stops => "the user asks to stop",
        }
    }
}

/// How many faults there are, and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    /// The largest number of faults.
    pub(crate) count: u64,
    /// Events between one and the next, on average.
    pub(crate) every: u64,
    /// The kinds to draw from.
    pub(crate) kinds: Vec<Fault>,
}

impl Faults {
    pub(crate) fn any(stream: &mut Stream) -> Self {
        if rng::below(stream, 4) == 0 {
            return Self::default();
        }
        let kinds: Vec<Fault> = Fault::ALL.into_iter().filter(|_| rng::below(stream, 2) == 0).collect();
        let kinds = if kinds.is_empty() { vec![Fault::Dies] } else { kinds };
        Self { count: 1 + rng::below(stream, 10), every: 3 + rng::below(stream, 100), kinds }
    }

    /// Requests to stop only.
    pub(crate) fn stops(stream: &mut Stream) -> Self {
        Self { count: 1 + rng::below(stream, 3), every: 3 + rng::below(stream, 200), kinds: vec![Fault::Stops] }
    }
}

/// The future faults.
pub(crate) struct Injector {
    faults: Faults,
    stream: Stream,
    left: u64,
    /// Events until the next one.
    countdown: u64,
    /// The modality that the last fault hit. The next fault often hits the same one.
    last: usize,
    /// Store failures of each modality in a row. Too many would fail the job, which is not tested here.
    store_failures: BTreeMap<usize, u64>,
}

impl Injector {
    /// `name` is that of its random stream.
    pub(crate) fn new(faults: &Faults, seed: u64, name: &str) -> Self {
        let mut stream = rng::stream(seed, &[name.into()]);
        let countdown = 1 + rng::below(&mut stream, 2 * faults.every + 1);
        let (faults, left) = (faults.clone(), faults.count);
        Self { faults, stream, left, countdown, last: 0, store_failures: BTreeMap::new() }
    }

    fn next(&mut self) -> Option<Fault> {
        if self.left == 0 || self.faults.kinds.is_empty() {
            return None;
        }
        self.countdown -= 1;
        if self.countdown > 0 {
            return None;
        }
        self.left -= 1;
        self.countdown = 1 + rng::below(&mut self.stream, 2 * self.faults.every + 1);
        let kind = rng::below(&mut self.stream, self.faults.kinds.len() as u64);
        self.faults.kinds.get(kind as usize).copied()
    }

    /// Anything from a thousandth of `about` to three times as long.
    pub(crate) fn span(&mut self, about: Span) -> Span {
        let factor = 3.0 * 10.0_f64.powf(-3.5 * rng::uniform(&mut self.stream));
        Span((about.0 as f64 * factor) as u64)
    }

    pub(crate) fn coin(&mut self) -> bool {
        rng::below(&mut self.stream, 2) == 0
    }
}

impl World<'_> {
    /// Injects a fault, if it is time.
    pub(super) fn disturb(&mut self) -> Result<(), String> {
        if self.stops.next().is_some() {
            self.ask_to_stop();
        }
        let Some(fault) = self.injector.next() else { return Ok(()) };
        let (ttl, turn) = (self.ttl(), self.turn_deadline());
        match fault {
            Fault::ManifestsTakeLong => {
                self.manifests_late = self.now + self.injector.span(Span(4 * turn.0));
            }
            Fault::CoordinatorDies | Fault::CoordinatorIsReplaced | Fault::CoordinatorPauses => {
                if self.coordinator_is_down {
                    return Ok(());
                }
                if fault == Fault::CoordinatorPauses {
                    // Its current work takes this much longer.
                    self.stall = self.injector.span(ttl);
                } else {
                    self.coordinator_goes(fault == Fault::CoordinatorIsReplaced);
                }
            }
            _ => {
                let Some(at) = self.victim() else { return Ok(()) };
                self.hit(fault, at, ttl, turn);
            }
        }
        self.seen.insert(fault.as_str());
        self.trace.note(self.now, fault.as_str());
        Ok(())
    }

    /// A worker that is alive and connected; often one of the modality that was hit last.
    fn victim(&mut self) -> Option<usize> {
        let again = self.injector.coin();
        let last = self.injector.last;
        let candidates = |again: bool| -> Vec<usize> {
            let fit = |at: &usize| {
                let process = &self.processes[*at];
                process.alive && process.connection.is_some() && (!again || process.modality == last)
            };
            (0..self.processes.len()).filter(fit).collect()
        };
        let mut fit = candidates(again);
        if fit.is_empty() {
            fit = candidates(false);
        }
        if fit.is_empty() {
            return None;
        }
        let at = fit[rng::below(&mut self.injector.stream, fit.len() as u64) as usize];
        self.injector.last = self.processes[at].modality;
        Some(at)
    }

    fn hit(&mut self, fault: Fault, at: usize, ttl: Span, turn: Span) {
        let doing = self.processes[at].engine.doing();
        let now = self.now;
        match fault {
            Fault::Dies => {
                self.hit_while.insert(doing);
                self.lose_connection(at, ttl);
                self.processes[at].alive = false;
                let modality = self.processes[at].modality;
                let after = self.injector.span(ttl);
                self.foresee(now + after, Event::Starts { modality });
            }
            // A paused worker is not paused again, so that messages to it keep their order.
            Fault::Pauses if self.processes[at].paused <= now => {
                let until = now + self.injector.span(Span(2 * ttl.0));
                self.processes[at].paused = until;
            }
            Fault::Hangs if self.processes[at].hung <= now => {
                let until = now + self.injector.span(Span(2 * turn.0));
                self.processes[at].hung = until;
            }
            Fault::Disconnects => {
                self.lose_connection(at, ttl);
                let after = self.injector.span(ttl);
                self.foresee(now + after, Event::Connects { at });
            }
            Fault::Leaves => self.leave(at),
            Fault::StoreFails => {
                let modality = self.processes[at].modality;
                let failures = self.injector.store_failures.entry(modality).or_default();
                if *failures == 0 {
                    *failures += 1;
                    self.processes[at].engine.store_fails = true;
                }
            }
            _ => {}
        }
    }

    /// Loses all messages in transit. The coordinator learns of the lost connection at once, or much later.
    pub(super) fn lose_connection(&mut self, at: usize, ttl: Span) {
        let Some(connection) = self.processes[at].connection.take() else { return };
        self.processes[at].engine.disconnect();
        let after = self.injector.span(ttl);
        self.foresee(self.now + after, Event::IsGone { at, connection });
    }

    /// Removes a coordinator that is dead, or believed dead. The next one is not asked to stop.
    pub(super) fn coordinator_goes(&mut self, wakes_up: bool) {
        self.coordinator_is_down = true;
        self.asked = None;
        let ttl = self.ttl();
        let back = self.now + self.injector.span(ttl);
        self.foresee(back, Event::CoordinatorBegins);
        let mut on_their_way: Vec<Inbound> =
            self.inbox.drain(..).filter(|item| item.doubtful.is_none()).map(|item| item.inbound).collect();
        on_their_way.extend(self.events.values().filter_map(|event| match event {
            Event::Arrives { inbound, genuine: true, .. } => Some(inbound.clone()),
            _ => None,
        }));
        for inbound in &on_their_way {
            // They reach the next coordinator late. Messages without a term are dropped.
            if let Inbound::Says { worker, message } = inbound
                && message.term().is_some()
                && self.injector.coin()
            {
                let late = noise::later(back, &mut self.noise_stream);
                let inbound = Inbound::Says { worker: worker.clone(), message: message.clone() };
                self.foresee(late, Event::ArrivesLate { inbound });
            }
        }
        for at in 0..self.processes.len() {
            self.processes[at].connection = None;
            self.processes[at].registered = None;
            self.processes[at].engine.disconnect();
            if self.processes[at].alive {
                let dials = back + self.injector.span(ttl);
                self.foresee(dials, Event::Connects { at });
            }
        }
        if wakes_up {
            let wakes = back + self.injector.span(Span(ttl.0 / 4));
            self.foresee(wakes, Event::OldCoordinatorWakes { on_their_way });
        }
        self.keeps_old = wakes_up;
    }

    /// The coordinator of an older term continues. Its messages and writes must have no effect.
    pub(super) fn old_coordinator_wakes(&mut self, on_their_way: Vec<Inbound>) -> Result<(), String> {
        let Some(mut old) = self.old.take() else { return Ok(()) };
        for inbound in on_their_way {
            if let Err(Refusal::Broken(why)) = old.take(self.now, inbound) {
                return Err(format!("in term {}: {why}", old.term));
            }
            let (_, sent) = old.take_sent();
            for (_, sent) in sent {
                // Its connections have ended: its messages reach no worker, or have an old term.
                if !matches!(&sent, Sent::ToWorker(_, message) if message.term().is_none()) {
                    self.set_off(self.now, old.term, sent)?;
                }
            }
        }
        Ok(())
    }

    /// Starts the next coordinator from the newest checkpoint.
    pub(super) fn coordinator_begins(&mut self) -> Result<(), String> {
        let term = Term(self.coordinator.term.0 + 1);
        let mut before = self.coordinator.report.clone();
        let heard = self.coordinator.newest;
        let from = self.store.begin(term);
        let turn = from.map(Manifest::turn);
        if turn < heard {
            return Err(format!("checkpoint {heard:?} was there, and now {turn:?} is the newest"));
        }
        before.go_back(from.map(|manifest| &manifest.position));
        let next = Coordinator::begin(self.scenario, &self.naive, term, from, self.now, before)?;
        if turn > heard {
            self.seen.insert("a checkpoint was there that the coordinator had not heard of");
        }
        if self
            .coordinator
            .machine
            .pending_checkpoint()
            .is_some_and(|pending| pending.has_all_files() && Some(pending.turn()) != turn)
        {
            self.seen.insert("a coordinator was lost between files and manifest");
        }
        self.trace.begins(self.now, term, turn);
        self.seen.extend(std::mem::take(&mut self.coordinator.seen));
        self.applied.append(&mut self.coordinator.applied);
        let old = std::mem::replace(&mut self.coordinator, next);
        self.old = self.keeps_old.then_some(old);
        self.coordinator_is_down = false;
        self.busy = false;
        self.deadline = None;
        self.foresee_deadline();
        Ok(())
    }
}
