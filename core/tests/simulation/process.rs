//! Worker processes: they start, connect, send heartbeats, pause, and lose their connections.

use antiphon_core::ids::WorkerId;
use antiphon_core::time::{Span, Time};

use crate::coordinator::Inbound;
use crate::delays::Source;
use crate::event::Event;
use crate::worker::{Done, ToCoordinator, Worker};
use crate::world::World;

/// One direction of a connection. Messages stay in order.
pub(crate) struct Link {
    delay: Source,
    last: Time,
}

impl Link {
    pub(crate) fn arrival(&mut self, sent: Time) -> Time {
        self.last = self.last.max(sent + self.delay.draw());
        self.last
    }
}

/// A worker's process.
pub(crate) struct Process {
    pub(crate) engine: Worker,
    /// Its position in the job.
    pub(crate) modality: usize,
    pub(crate) alive: bool,
    /// The number of its connection, while there is one.
    pub(crate) connection: Option<u64>,
    connections: u64,
    /// The connection under which the coordinator knows it.
    pub(crate) registered: Option<u64>,
    /// The end of its pause.
    pub(crate) paused: Time,
    /// The time until which its engine hangs.
    pub(crate) hung: Time,
    /// Whether it was asked to stop.
    leaving: bool,
    pub(crate) to_worker: Link,
    pub(crate) to_coordinator: Link,
}

impl World<'_> {
    /// Adds a worker of a modality. It has not connected yet.
    pub(super) fn start(&mut self, modality: usize) -> usize {
        let at = self.processes.len();
        let count = self.processes.iter().filter(|process| process.modality == modality).count() + 1;
        let name = &self.scenario.job.modalities[modality].name;
        let id = WorkerId::try_from(format!("{name}-{count}")).expect("a good name");
        let (delays, seed) = (self.scenario.workers[modality], self.scenario.schedule_seed);
        let link = |delay, what| Link { delay: Source::new(delay, seed, what, id.as_str().into()), last: Time(0) };
        let (to_worker, to_coordinator) = (link(delays.inbound, "inbound"), link(delays.outbound, "outbound"));
        let new = self.new[modality].clone();
        self.processes.push(Process {
            engine: Worker::new(self.scenario, modality, id, new, std::rc::Rc::clone(&self.naive)),
            modality,
            alive: true,
            connection: None,
            connections: 0,
            registered: None,
            paused: Time(0),
            hung: Time(0),
            leaving: false,
            to_worker,
            to_coordinator,
        });
        at
    }

    pub(super) fn happen_to_worker(&mut self, event: Event) -> Result<(), String> {
        let (Event::Connects { at }
        | Event::Beat { at, .. }
        | Event::Reaches { to: at, .. }
        | Event::WorkerDone { at, .. }
        | Event::Uploaded { at, .. }) = event
        else {
            if let Event::Starts { modality } = event {
                let at = self.start(modality);
                self.connect(at);
            }
            return Ok(());
        };
        let process = &self.processes[at];
        let hangs = matches!(event, Event::WorkerDone { .. }) && process.hung > self.now;
        let until = if hangs { process.paused.max(process.hung) } else { process.paused };
        if process.alive && until > self.now {
            self.foresee(until, Event::Postponed(Box::new(event)));
            return Ok(());
        }
        match event {
            Event::Connects { at } => self.connect(at),
            Event::Beat { at, connection } => self.beat(at, connection),
            Event::Reaches { to, connection, message } if self.processes[to].connection == Some(connection) => {
                self.trace.reached(self.now, &self.processes[to].engine.id, &message);
                let takes = self.processes[to].engine.hear(message);
                self.foresee_done(to, takes);
            }
            Event::WorkerDone { at, life } => return self.worker_done(at, life),
            Event::Uploaded { at, tenure, term, turn, encoder, fails } => {
                let is_mine = self.processes[at].engine.tenure == tenure;
                if fails && is_mine {
                    let reason = "the store does not answer".to_owned();
                    self.send(at, ToCoordinator::Failed { term, reason, transient: true });
                } else if !fails {
                    self.store.put_encoder(turn, &encoder)?;
                    if is_mine {
                        self.send(at, ToCoordinator::FilesSaved { term, turn, digest: encoder.digest() });
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn worker_done(&mut self, at: usize, life: u64) -> Result<(), String> {
        if self.processes[at].engine.life != life {
            return Ok(());
        }
        let (answer, takes) = self.processes[at].engine.done(&self.store)?;
        match answer {
            Some(Done::Says(answer)) => {
                let is_last = matches!(answer, ToCoordinator::Released) && self.processes[at].leaving;
                self.send(at, answer);
                if is_last {
                    self.quit(at);
                    return Ok(());
                }
            }
            Some(Done::Uploads { term, turn, encoder, fails }) => {
                let process = &mut self.processes[at];
                let (tenure, takes) = (process.engine.tenure, process.engine.upload_takes());
                self.foresee(self.now + takes, Event::Uploaded { at, tenure, term, turn, encoder, fails });
            }
            None => {}
        }
        self.foresee_done(at, takes);
        Ok(())
    }

    fn foresee_done(&mut self, at: usize, takes: Option<Span>) {
        if let Some(takes) = takes {
            let life = self.processes[at].engine.life;
            self.foresee(self.now + takes, Event::WorkerDone { at, life });
        }
    }

    fn connect(&mut self, at: usize) {
        let process = &mut self.processes[at];
        if !process.alive || process.connection.is_some() {
            return;
        }
        if process.leaving {
            return self.quit(at);
        }
        if self.coordinator_is_down {
            let later = self.now + Span(self.ttl().0 / 7 + 1);
            return self.foresee(later, Event::Connects { at });
        }
        process.connections += 1;
        let (connection, tenure) = (process.connections, process.engine.tenure);
        process.connection = Some(connection);
        let arrival = process.to_coordinator.arrival(self.now);
        let modality = self.scenario.job.modalities[process.modality].name.clone();
        let inbound = Inbound::Registers { worker: process.engine.id.clone(), modality };
        self.foresee(arrival, Event::Arrives { from: at, connection, inbound, genuine: true, tenure });
        self.foresee(self.now + Span(self.ttl().0 / 3), Event::Beat { at, connection });
    }

    /// Whether a worker that connects can be registered. It cannot while the coordinator still believes in its last
    /// connection; then it reconnects.
    pub(super) fn registers(&mut self, worker: &WorkerId) -> Result<bool, String> {
        let at = self.processes.iter().position(|process| process.engine.id == *worker);
        let at = at.ok_or_else(|| format!("`{worker}` is unknown"))?;
        let process = &mut self.processes[at];
        if process.connection.is_none() || process.registered == process.connection {
            return Ok(false);
        }
        if !self.coordinator.pool.knows(worker) {
            process.registered = process.connection;
            return Ok(true);
        }
        process.connection = None;
        process.engine.disconnect();
        let later = self.now + Span(self.ttl().0 / 7 + 1);
        self.foresee(later, Event::Connects { at });
        Ok(false)
    }

    fn beat(&mut self, at: usize, connection: u64) {
        let process = &self.processes[at];
        if process.connection != Some(connection) {
            return;
        }
        let (progress, busy) = (process.engine.progress, process.engine.is_busy());
        self.send(at, ToCoordinator::Heartbeat { progress, busy });
        self.foresee(self.now + Span(self.ttl().0 / 3 + 1), Event::Beat { at, connection });
    }

    /// Asks a worker to stop. A worker with a job sends `Leaving` and exits when it is released.
    pub(super) fn leave(&mut self, at: usize) {
        self.processes[at].leaving = true;
        match self.processes[at].engine.term() {
            Some(term) => self.send(at, ToCoordinator::Leaving { term }),
            None => self.quit(at),
        }
    }

    /// Ends a worker's process. Another process replaces it some time later.
    fn quit(&mut self, at: usize) {
        let ttl = self.ttl();
        self.lose_connection(at, Span(ttl.0 / 10));
        self.processes[at].alive = false;
        let modality = self.processes[at].modality;
        let starts = self.injector.span(ttl);
        self.foresee(self.now + starts, Event::Starts { modality });
    }
}
