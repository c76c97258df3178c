//! The simulation itself: a virtual clock, the events that are to come, and the network between a coordinator and its workers.
//!
//! Everything that happens is an [`Event`] at a time; events of one moment happen in the order in which they were foreseen. So
//! a run is a function of its scenario. A fault is one more event: whoever wants workers that crash or stores that fail adds a
//! variant, has [`World::new`] foresee it and [`World::happen`] carry it out.
//!
//! Messages of one worker and to one worker stay in their order, as in a stream; those of different workers do not. Coordinator
//! and workers do one thing at a time, and what comes meanwhile waits.

use std::collections::{BTreeMap, VecDeque};

use antiphon_core::ids::{ModalityName, Turn};
use antiphon_core::rng::{self, Stream};
use antiphon_core::time::{Span, Time};
use antiphon_core::turn::Input;

use crate::coordinator::{Coordinator, Refusal, Sent};
use crate::delays::Source;
use crate::noise::Noise;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::trace::{Said, Trace};
use crate::worker::{ToCoordinator, ToWorker, Worker};

/// No job of these sizes needs as many events: one that does goes in circles.
const MOST_EVENTS: u64 = 1_000_000;

/// What a simulation comes to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) trace: Trace,
    /// How often what was refused, by the name of the reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// When which modality's step was applied.
    pub(crate) applied: Vec<(Time, ModalityName)>,
}

/// Something that must never be has happened.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) why: String,
    pub(crate) trace: Trace,
}

/// Something that is to happen.
#[derive(Debug, Clone)]
enum Event {
    /// Something is there for the coordinator to look at.
    Arrives(Inbound),
    /// A message is there for a worker to look at.
    Reaches { to: usize, message: ToWorker },
    /// A worker is done with what it was busy with.
    WorkerDone { at: usize },
    /// The coordinator is done with the last thing it looked at.
    CoordinatorDone,
}

/// What a coordinator looks at.
#[derive(Debug, Clone)]
enum Inbound {
    FromWorker { from: usize, message: Box<ToCoordinator>, genuine: bool },
    Written(Turn),
    Deadline(Time),
}

/// One direction of a connection: what is sent later does not arrive earlier.
struct Link {
    delay: Source,
    last: Time,
}

impl Link {
    fn arrival(&mut self, sent: Time) -> Time {
        self.last = self.last.max(sent + self.delay.draw());
        self.last
    }
}

/// A coordinator, its workers, and what is to come.
pub(crate) struct World {
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    foreseen: u64,
    coordinator: Coordinator,
    inbox: VecDeque<Inbound>,
    busy: bool,
    /// The deadline that was foreseen last.
    deadline: Option<Time>,
    workers: Vec<Worker>,
    to_worker: Vec<Link>,
    to_coordinator: Vec<Link>,
    manifest: Source,
    noise: Noise,
    noise_stream: Stream,
    refused: BTreeMap<String, u64>,
    trace: Trace,
}

/// Simulates a scenario to its end.
pub(crate) fn run(scenario: &Scenario) -> Result<Run, Box<Broken>> {
    let mut world = World::new(scenario);
    match world.run() {
        Ok(()) => Ok(Run {
            report: world.coordinator.report,
            trace: world.trace,
            refused: world.refused,
            applied: world.coordinator.applied,
        }),
        Err(why) => Err(Box::new(Broken { why: format!("at {} µs: {why}", world.now.0), trace: world.trace })),
    }
}

impl World {
    fn new(scenario: &Scenario) -> Self {
        let seed = scenario.schedule_seed;
        let names: Vec<&ModalityName> = scenario.job.modalities.iter().map(|modality| &modality.name).collect();
        let link = |delay, what, name: &ModalityName| Link {
            delay: Source::new(delay, seed, what, name.into()),
            last: Time(0),
        };
        let both = || scenario.workers.iter().zip(&names);
        let learners = scenario.learners().into_iter().enumerate();
        let mut world = Self {
            now: Time(0),
            events: BTreeMap::new(),
            foreseen: 0,
            coordinator: Coordinator::new(scenario),
            inbox: VecDeque::new(),
            busy: false,
            deadline: None,
            workers: learners.map(|(at, learner)| Worker::new(scenario, at, learner)).collect(),
            to_worker: both().map(|(delays, name)| link(delays.inbound, "inbound", name)).collect(),
            to_coordinator: both().map(|(delays, name)| link(delays.outbound, "outbound", name)).collect(),
            manifest: Source::new(scenario.coordinator.manifest, seed, "manifest", "coordinator".into()),
            noise: Noise { copies: scenario.copies, lies: scenario.lies, workers: names.len() },
            noise_stream: rng::stream(seed, &["noise".into()]),
            refused: BTreeMap::new(),
            trace: Trace::default(),
        };
        for (from, (delays, name)) in both().enumerate() {
            let joins = Source::new(delays.join, seed, "join", (*name).into()).draw();
            let message = Box::new(ToCoordinator::Join { modality: (*name).clone() });
            world.foresee(Time(0) + joins, Event::Arrives(Inbound::FromWorker { from, message, genuine: true }));
        }
        world
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            self.happen(event)?;
            if self.foreseen > MOST_EVENTS {
                return Err(format!(
                    "after {MOST_EVENTS} events the job is at {}",
                    self.coordinator.machine.activity()
                ));
            }
        }
        if self.coordinator.report.outcome.is_none() {
            return Err(format!(
                "nothing is to come any more, and the job is at {}",
                self.coordinator.machine.activity()
            ));
        }
        let parts = self.workers.iter().map(|w| (format!("encoder-{}", w.learner.name()), w.learner.digest()));
        self.coordinator.report.state.extend(parts);
        Ok(())
    }

    fn foresee(&mut self, at: Time, event: Event) {
        self.events.insert((at.max(self.now), self.foreseen), event);
        self.foreseen += 1;
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrives(inbound) => {
                self.inbox.push_back(inbound);
                self.serve()
            }
            Event::CoordinatorDone => {
                self.busy = false;
                self.serve()
            }
            Event::Reaches { to, message } => {
                self.trace.reached(self.now, &self.workers[to].id, &message);
                let begun = self.workers[to].hear(message)?;
                self.foresee_done(to, begun);
                Ok(())
            }
            Event::WorkerDone { at } => {
                let (answer, begun) = self.workers[at].done()?;
                if let Some(answer) = answer {
                    self.trace.said(self.now, &self.workers[at].id, &answer);
                    self.send(at, answer);
                }
                self.foresee_done(at, begun);
                Ok(())
            }
        }
    }

    fn foresee_done(&mut self, at: usize, begun: Option<Span>) {
        if let Some(takes) = begun {
            self.foresee(self.now + takes, Event::WorkerDone { at });
        }
    }

    /// A worker sends; the network may deliver more than was sent.
    fn send(&mut self, from: usize, message: ToCoordinator) {
        let arrival = self.to_coordinator[from].arrival(self.now);
        let disturbances = self.noise.around(from, &message, arrival, &mut self.noise_stream);
        self.foresee(arrival, Event::Arrives(Inbound::FromWorker { from, message: Box::new(message), genuine: true }));
        for (at, from, message) in disturbances {
            let message = Box::new(message);
            self.foresee(at, Event::Arrives(Inbound::FromWorker { from, message, genuine: false }));
        }
    }

    /// The coordinator looks at what has come, one thing after the other.
    fn serve(&mut self) -> Result<(), String> {
        while !self.busy
            && let Some(inbound) = self.inbox.pop_front()
        {
            self.look_at(inbound)?;
            let (spent, sent) = self.coordinator.take_sent();
            for (after, sent) in sent {
                self.set_off(self.now + after, sent)?;
            }
            if spent > Span(0) {
                self.busy = true;
                self.foresee(self.now + spent, Event::CoordinatorDone);
            }
            self.foresee_deadline();
        }
        Ok(())
    }

    fn look_at(&mut self, inbound: Inbound) -> Result<(), String> {
        let taken = match inbound {
            Inbound::FromWorker { from, message, genuine: true } => {
                self.trace.heard(self.now, &self.workers[from].id, &message);
                let id = self.workers[from].id.clone();
                self.coordinator.hear(self.now, &id, *message)
            }
            Inbound::FromWorker { from, message, genuine: false } => return self.look_at_wrong(from, *message),
            Inbound::Written(turn) => {
                self.trace.written(self.now, turn);
                self.coordinator.written(self.now, turn)
            }
            Inbound::Deadline(at) => match self.coordinator.machine.next_deadline() {
                Some((wanted, _)) if wanted == at => self.coordinator.give(self.now, Input::Tick),
                _ => Ok(()),
            },
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Refusal::Broken(why)) => Err(why),
            Err(refusal) => Err(format!("a message that is as it should be was refused: {refusal:?}")),
        }
    }

    /// What was never sent so must be refused, and change nothing.
    fn look_at_wrong(&mut self, from: usize, message: ToCoordinator) -> Result<(), String> {
        let told = Said(&message).to_string();
        let before = (self.coordinator.machine.clone(), self.coordinator.head.clone());
        let id = self.workers[from].id.clone();
        let reason = match self.coordinator.hear(self.now, &id, message) {
            Ok(()) => return Err(format!("a copy or a lie of `{id}` was taken: {told}")),
            Err(Refusal::Broken(why)) => return Err(why),
            Err(Refusal::Rejected(rejected)) => format!("{rejected:?}"),
            Err(Refusal::Shell(reason)) => format!("Shell ({reason})"),
        };
        self.trace.refused(self.now, &id, &reason);
        if before.0 != self.coordinator.machine || before.1 != self.coordinator.head {
            return Err(format!("what was refused changed something: {told}"));
        }
        let name = reason.split([' ', '{']).next().unwrap_or_default();
        *self.refused.entry(name.to_owned()).or_default() += 1;
        Ok(())
    }

    fn set_off(&mut self, at: Time, sent: Sent) -> Result<(), String> {
        match sent {
            Sent::Manifest(turn) => {
                let takes = self.manifest.draw();
                self.foresee(at + takes, Event::Arrives(Inbound::Written(turn)));
            }
            Sent::ToWorker(worker, message) => {
                let to = self.workers.iter().position(|known| known.id == worker);
                let to = to.ok_or_else(|| format!("a message to `{worker}`, whom nobody knows"))?;
                let arrival = self.to_worker[to].arrival(at);
                self.foresee(arrival, Event::Reaches { to, message });
            }
        }
        Ok(())
    }

    fn foresee_deadline(&mut self) {
        if let Some((at, _)) = self.coordinator.machine.next_deadline()
            && self.deadline != Some(at)
        {
            self.deadline = Some(at);
            self.foresee(at, Event::Arrives(Inbound::Deadline(at)));
        }
    }
}
