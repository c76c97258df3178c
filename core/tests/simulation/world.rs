//! The simulation itself: a virtual clock, the future events, and the network between a coordinator and its workers.
//!
//! Everything that happens is an [`Event`] at a time; events of one moment happen in the order in which they were
//! scheduled. So a run is a function of its scenario. Faults follow events ([`crate::faults`]), and their consequences
//! are events too.
//!
//! Messages from one worker and to one worker stay in order, as in a stream; messages of different workers do not.
//! Coordinator and workers process one input at a time, and others wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use antiphon_core::ids::{ModalityName, Term, WorkerId};
use antiphon_core::rng::{self, Stream};
use antiphon_core::spec::JobSpec;
use antiphon_core::time::{Span, Time};
use antiphon_core::turn::Outcome;

use crate::coordinator::{Coordinator, Inbound, Refusal, Sent};
use crate::delays::Source;
use crate::event::{Event, Item};
use crate::faults::Injector;
use crate::learner::Learner;
use crate::naive::Naive;
use crate::noise::Noise;
use crate::process::Process;
use crate::report::{CheckpointRecord, Report, head_state};
use crate::scenario::Scenario;
use crate::store::{Manifest, Store};
use crate::trace::{Said, Trace};
use crate::worker::ToCoordinator;

/// No job of these sizes needs as many events: one that does is in an endless loop.
const MOST_EVENTS: u64 = 1_000_000;

/// The result of a simulation.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) trace: Trace,
    /// How many messages were refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// When which modality's step was applied.
    pub(crate) applied: Vec<(Time, ModalityName)>,
    /// What happened in the run.
    pub(crate) seen: BTreeSet<String>,
}

impl Run {
    /// The first difference from the plain loop.
    pub(crate) fn differs_from(&self, naive: &Naive) -> Option<String> {
        // What it did until it failed was compared step by step.
        if matches!(self.report.outcome, Some(Outcome::Failed { .. })) {
            return None;
        }
        let makes_room = self.seen.iter().any(|seen| seen.contains("replay buffer"));
        let saves_early = makes_room || self.seen.contains("seen: the user asked to stop");
        let early: &[CheckpointRecord] = if saves_early { &self.report.checkpoints } else { &[] };
        self.report.differs_from(&naive.expected(early))
    }
}

/// A broken invariant.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) why: String,
    pub(crate) trace: Trace,
}

/// A coordinator, its workers, and the future events.
pub(crate) struct World<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) naive: Rc<Naive>,
    pub(super) now: Time,
    pub(super) events: BTreeMap<(Time, u64), Event>,
    foreseen: u64,
    /// The number of future events of each class: work, faults, timers.
    pending: [u64; 3],
    pub(super) coordinator: Coordinator,
    pub(super) coordinator_is_down: bool,
    /// Whether the last lost coordinator will wake up.
    pub(super) keeps_old: bool,
    pub(super) old: Option<Coordinator>,
    pub(super) store: Store,
    pub(super) inbox: VecDeque<Item>,
    pub(super) busy: bool,
    /// How long the coordinator stalls next.
    pub(super) stall: Span,
    /// The deadline that was scheduled last.
    pub(super) deadline: Option<Time>,
    pub(super) processes: Vec<Process>,
    pub(super) new: Vec<Learner>,
    manifest: Source,
    /// The time until which manifests take long.
    pub(super) manifests_late: Time,
    noise: Noise,
    pub(super) noise_stream: Stream,
    pub(super) injector: Injector,
    pub(super) stops: Injector,
    /// Whether the job was asked to stop, and at once.
    pub(super) asked: Option<bool>,
    quiet_since: Option<Time>,
    /// Since when it has waited without giving a reason.
    silent_since: Option<Time>,
    refused: BTreeMap<String, u64>,
    pub(super) applied: Vec<(Time, ModalityName)>,
    pub(super) seen: BTreeSet<&'static str>,
    /// What workers were doing when they died.
    pub(super) hit_while: BTreeSet<&'static str>,
    pub(super) trace: Trace,
}

/// Simulates a scenario to its end.
pub(crate) fn run(scenario: &Scenario, naive: &Rc<Naive>) -> Result<Run, Box<Broken>> {
    run_traced(scenario, naive, Trace::default())
}

/// As [`run`], with a trace that may record more.
pub(crate) fn run_traced(scenario: &Scenario, naive: &Rc<Naive>, trace: Trace) -> Result<Run, Box<Broken>> {
    let mut world = match World::new(scenario, naive, trace) {
        Ok(world) => world,
        Err(why) => return Err(Box::new(Broken { why, trace: Trace::default() })),
    };
    match world.run() {
        Ok(()) => {
            let died = world.hit_while.iter().map(|doing| format!("died: {doing}"));
            let seen = world.seen.iter().chain(&world.coordinator.seen).map(|seen| format!("seen: {seen}"));
            let seen = seen.chain(died).collect();
            world.applied.append(&mut world.coordinator.applied);
            let World { coordinator, trace, refused, applied, .. } = world;
            Ok(Run { report: coordinator.report, trace, refused, applied, seen })
        }
        Err(why) => Err(Box::new(Broken { why: format!("at {} µs: {why}", world.now.0), trace: world.trace })),
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, naive: &Rc<Naive>, mut trace: Trace) -> Result<Self, String> {
        let seed = scenario.schedule_seed;
        let mut store = Store::new(Rc::clone(naive), scenario.job.checkpoints.keep, scenario.bug);
        let term = Term(1);
        store.begin(term);
        trace.begins(Time(0), term, None);
        let mut world = Self {
            scenario,
            naive: Rc::clone(naive),
            now: Time(0),
            events: BTreeMap::new(),
            foreseen: 0,
            pending: [0; 3],
            coordinator: Coordinator::begin(scenario, naive, term, None, Time(0), Report::default())?,
            coordinator_is_down: false,
            keeps_old: false,
            old: None,
            store,
            inbox: VecDeque::new(),
            busy: false,
            stall: Span(0),
            deadline: None,
            processes: Vec::new(),
            new: scenario.learners(),
            manifest: Source::new(scenario.coordinator.manifest, seed, "manifest", "coordinator".into()),
            manifests_late: Time(0),
            noise: Noise { copies: scenario.copies, lies: scenario.lies },
            noise_stream: rng::stream(seed, &["noise".into()]),
            injector: Injector::new(&scenario.faults, seed, "faults"),
            stops: Injector::new(&scenario.stops, seed, "stops"),
            asked: None,
            quiet_since: None,
            silent_since: None,
            refused: BTreeMap::new(),
            applied: Vec::new(),
            seen: BTreeSet::new(),
            hit_while: BTreeSet::new(),
            trace,
        };
        for modality in 0..scenario.job.modalities.len() {
            for _ in 0..=scenario.spares {
                let at = world.start(modality);
                let joins = Source::new(scenario.workers[modality].join, seed, "join", at.into()).draw();
                world.foresee(Time(0) + joins, Event::Connects { at });
            }
        }
        world.foresee_deadline();
        Ok(world)
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.pending[event.class() as usize] -= 1;
            self.now = at;
            self.happen(event)?;
            if self.is_over()? {
                return self.end();
            }
            self.disturb()?;
            self.check_waits()?;
            if self.foreseen > MOST_EVENTS {
                return Err(format!("after {MOST_EVENTS} events {}", self.stands()));
            }
        }
        Err(format!("nothing is to come any more, and {}", self.stands()))
    }

    /// Checks a finished job: its last checkpoint holds all that it has learned.
    fn end(&mut self) -> Result<(), String> {
        let report = &mut self.coordinator.report;
        report.checkpoints.clone_from(&self.store.log);
        match (&report.outcome, self.store.newest()) {
            (Some(Outcome::Succeeded), Some(newest)) => {
                report.state = head_state(&self.coordinator.head)?;
                let encoders = newest.state.iter().filter(|(name, _)| name.starts_with("encoder-"));
                report.state.extend(encoders.map(|(name, digest)| (name.clone(), *digest)));
                Ok(())
            }
            // The store failed more often than a job tolerates.
            (Some(Outcome::Failed { reason }), _) if reason.ends_with("(3 times in a row)") => {
                self.seen.insert("the store failed too often");
                Ok(())
            }
            (outcome, _) => Err(format!("the job ended: {outcome:?}")),
        }
    }

    fn stands(&self) -> String {
        let machine = &self.coordinator.machine;
        let waiting = machine.waiting(self.now, |modality| self.coordinator.pool.registered(modality));
        format!("the job is at \"{}\", waiting: {:?}", machine.activity(), waiting.map(|waiting| waiting.reason))
    }

    /// Checks that the job waits without a reported reason only as long as it takes to notice a missing worker, and
    /// that nothing waits forever.
    fn check_waits(&mut self) -> Result<(), String> {
        let [work, faults, _] = self.pending;
        if work > 0 || self.busy || self.coordinator_is_down || !self.inbox.is_empty() {
            (self.quiet_since, self.silent_since) = (None, None);
            return Ok(());
        }
        let bound = Span(self.ttl().0 + self.turn_deadline().0 + 1_000_000);
        // Once a fault is over, a heartbeat lets a worker continue.
        let since = *self.quiet_since.insert(self.quiet_since.filter(|_| faults == 0).unwrap_or(self.now));
        if self.now > since + bound {
            return Err(format!("nothing is to come any more, and {}", self.stands()));
        }
        if self.coordinator.machine.waiting(self.now, |_| 0).is_some_and(|waiting| !waiting.reason.is_empty()) {
            self.silent_since = None;
            return Ok(());
        }
        let since = *self.silent_since.get_or_insert(self.now);
        if self.now > since + bound {
            return Err(format!("nothing has happened since {} µs without a reason, and {}", since.0, self.stands()));
        }
        Ok(())
    }

    pub(super) fn ttl(&self) -> Span {
        Span::from_secs_f64(self.job().schedule.lease_ttl)
    }

    pub(super) fn turn_deadline(&self) -> Span {
        Span::from_secs_f64(self.job().schedule.turn_deadline)
    }

    fn job(&self) -> &JobSpec {
        &self.scenario.job
    }

    pub(super) fn foresee(&mut self, at: Time, event: Event) {
        self.pending[event.class() as usize] += 1;
        self.events.insert((at.max(self.now), self.foreseen), event);
        self.foreseen += 1;
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Postponed(event) => self.happen(*event),
            Event::Arrives { from, connection, inbound, genuine, tenure } => {
                if self.processes[from].connection != Some(connection) || self.coordinator_is_down {
                    return Ok(());
                }
                let doubtful = (!genuine).then_some((from, tenure));
                self.inbox.push_back(Item { inbound, doubtful });
                self.serve()
            }
            Event::ArrivesLate { inbound } => {
                if self.coordinator_is_down {
                    return Ok(());
                }
                self.seen.insert("a message of an older term came late");
                self.look_at_wrong(inbound)
            }
            Event::IsGone { at, connection } => {
                let process = &mut self.processes[at];
                if process.registered == Some(connection) {
                    process.registered = None;
                    let worker = process.engine.id.clone();
                    self.inbox.push_back(Inbound::Gone { worker }.into());
                }
                self.serve()
            }
            Event::Written { term, turn } => {
                if term == self.coordinator.term && !self.coordinator_is_down {
                    self.inbox.push_back(Inbound::Written { turn }.into());
                }
                self.serve()
            }
            Event::Stores { manifest, answer } => self.stores(&manifest, answer),
            Event::CoordinatorDone { term } => {
                if term == self.coordinator.term {
                    self.busy = false;
                }
                self.serve()
            }
            Event::Deadline => self.serve(),
            Event::AskedToStop { now } => self.asked_to_stop(now),
            Event::CoordinatorBegins => self.coordinator_begins(),
            Event::OldCoordinatorWakes { on_their_way } => self.old_coordinator_wakes(on_their_way),
            Event::Starts { .. }
            | Event::Connects { .. }
            | Event::Beat { .. }
            | Event::Reaches { .. }
            | Event::WorkerDone { .. }
            | Event::Uploaded { .. } => self.happen_to_worker(event),
        }
    }

    /// A manifest reaches the store.
    fn stores(&mut self, manifest: &Manifest, answer: Span) -> Result<(), String> {
        let (term, turn) = (manifest.term, manifest.turn());
        if self.store.complete(manifest)? {
            self.trace.stored(self.now, term, turn);
            self.foresee(self.now + answer, Event::Written { term, turn });
        } else {
            self.seen.insert("a manifest of an older term was refused");
        }
        Ok(())
    }

    /// The coordinator processes its inputs, one after the other; deadlines come last.
    pub(super) fn serve(&mut self) -> Result<(), String> {
        while !self.busy && !self.coordinator_is_down && self.coordinator.report.outcome.is_none() {
            if self.stall > Span(0) {
                let stall = std::mem::take(&mut self.stall);
                self.stay_busy(stall);
                return Ok(());
            }
            if let Some(Item { inbound, doubtful }) = self.inbox.pop_front() {
                match doubtful {
                    None => self.look_at(inbound)?,
                    Some((from, tenure)) if self.processes[from].engine.tenure == tenure => {
                        self.look_at_wrong(inbound)?
                    }
                    Some(_) => {}
                }
            } else if self.coordinator.machine.next_deadline().is_some_and(|(at, _)| at <= self.now) {
                self.look_at(Inbound::Due)?;
            } else {
                break;
            }
            let (spent, sent) = self.coordinator.take_sent();
            let term = self.coordinator.term;
            for (after, sent) in sent {
                self.set_off(self.now + after, term, sent)?;
            }
            if spent > Span(0) {
                self.stay_busy(spent);
            }
            self.foresee_deadline();
        }
        Ok(())
    }

    fn stay_busy(&mut self, span: Span) {
        self.busy = true;
        self.foresee(self.now + span, Event::CoordinatorDone { term: self.coordinator.term });
    }

    fn look_at(&mut self, inbound: Inbound) -> Result<(), String> {
        if let Inbound::Registers { worker, .. } = &inbound
            && !self.registers(&worker.clone())?
        {
            return Ok(());
        }
        self.trace.looks_at(self.now, &inbound);
        let taken = self.coordinator.take(self.now, inbound.clone());
        self.trace.record(self.now, &inbound, &mut self.coordinator, &taken);
        match taken {
            Ok(()) => Ok(()),
            Err(Refusal::Broken(why)) => Err(why),
            Err(refusal) => self.may_be_refused(&inbound, &refusal),
        }
    }

    /// Messages of a worker that has lost its slot may be refused, and logits of an abandoned evaluation; nothing else.
    fn may_be_refused(&mut self, inbound: &Inbound, refusal: &Refusal) -> Result<(), String> {
        let Inbound::Says { worker, message } = inbound else {
            return Err(format!("{inbound:?} was refused: {refusal:?}"));
        };
        self.trace.refused(self.now, worker, &format!("{refusal:?}"));
        let abandoned = match &**message {
            ToCoordinator::Evaluated { evaluation, .. } => self.coordinator.has_abandoned(*evaluation),
            _ => false,
        };
        if self.coordinator.machine.modality_of(worker).is_some() && !abandoned {
            let said = Said(message);
            return Err(format!("a message of `{worker}` that is as it should be was refused: {said}: {refusal:?}"));
        }
        self.seen.insert("a worker that had lost its slot was refused");
        Ok(())
    }

    /// A forged message must be refused and change nothing.
    fn look_at_wrong(&mut self, inbound: Inbound) -> Result<(), String> {
        let Inbound::Says { worker, message } = &inbound else { return Ok(()) };
        let told = Said(message).to_string();
        let worker = worker.clone();
        let before = (self.coordinator.machine.clone(), self.coordinator.head.clone());
        let taken = self.coordinator.take(self.now, inbound.clone());
        self.trace.record(self.now, &inbound, &mut self.coordinator, &taken);
        let reason = match taken {
            Ok(()) => return Err(format!("a copy or a lie of `{worker}` was taken: {told}")),
            Err(Refusal::Broken(why)) => return Err(why),
            Err(Refusal::Rejected(rejected)) => format!("{rejected:?}"),
            Err(Refusal::Shell(reason)) => format!("Shell ({reason})"),
        };
        self.trace.refused(self.now, &worker, &reason);
        if before.0 != self.coordinator.machine || before.1 != self.coordinator.head {
            return Err(format!("what was refused changed something: {told}"));
        }
        let name = reason.split([' ', '{']).next().unwrap_or_default();
        *self.refused.entry(name.to_owned()).or_default() += 1;
        Ok(())
    }

    pub(super) fn set_off(&mut self, at: Time, term: Term, sent: Sent) -> Result<(), String> {
        match sent {
            Sent::Inbox(inbound) => {
                if term == self.coordinator.term {
                    self.inbox.push_back(inbound.into());
                }
            }
            Sent::Manifest(manifest) => {
                let (takes, answer) = (self.manifest.draw(), self.manifest.draw());
                let late = self.manifests_late.since(at).0;
                // Either only the answer is late, or the write too.
                let early = self.noise_is_even();
                let (takes, answer) =
                    if early { (takes, Span(answer.0 + late)) } else { (Span(takes.0 + late), answer) };
                self.foresee(at + takes, Event::Stores { manifest, answer });
            }
            Sent::ToWorker(worker, message) => {
                let to = self.processes.iter().position(|known| known.engine.id == worker);
                let to = to.ok_or_else(|| format!("a message to `{worker}`, which is not known"))?;
                // Messages over a closed connection are lost, even if there is a new one.
                let process = &self.processes[to];
                if let Some(connection) = process.registered.filter(|known| process.connection == Some(*known)) {
                    let arrival = self.processes[to].to_worker.arrival(at);
                    self.foresee(arrival, Event::Reaches { to, connection, message });
                }
            }
        }
        Ok(())
    }

    fn noise_is_even(&mut self) -> bool {
        rng::below(&mut self.noise_stream, 2) == 0
    }

    /// A worker sends a message; the network may add others.
    pub(super) fn send(&mut self, from: usize, message: ToCoordinator) {
        let process = &mut self.processes[from];
        let Some(connection) = process.connection else { return };
        let (tenure, worker) = (process.engine.tenure, process.engine.id.clone());
        let arrival = process.to_coordinator.arrival(self.now);
        self.trace.said(self.now, &worker, &message);
        let others = self.processes.iter().enumerate();
        let mut others =
            others.filter(|(at, other)| *at != from && other.connection.is_some() && other.engine.term().is_some());
        let liar = others.next().map(|(at, _)| at);
        let disturbances = self.noise.around(from, liar, &message, arrival, &mut self.noise_stream);
        let says = |worker: &WorkerId, message| Inbound::Says { worker: worker.clone(), message: Box::new(message) };
        let inbound = says(&worker, message);
        self.foresee(arrival, Event::Arrives { from, connection, inbound, genuine: true, tenure });
        for (at, from, message) in disturbances {
            let process = &self.processes[from];
            let (tenure, Some(connection)) = (process.engine.tenure, process.connection) else { continue };
            let inbound = says(&process.engine.id, message);
            self.foresee(at, Event::Arrives { from, connection, inbound, genuine: false, tenure });
        }
    }

    pub(super) fn foresee_deadline(&mut self) {
        if let Some((at, _)) = self.coordinator.machine.next_deadline()
            && self.deadline != Some(at)
        {
            self.deadline = Some(at);
            self.foresee(at, Event::Deadline);
        }
    }
}
