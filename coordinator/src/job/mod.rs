//! One task per job: it owns the turn machine and the shared head, and nothing else writes them.
//!
//! ```text
//! inbox ───────┐                            ┌──▶ workers (assign, grant, evaluate, save part)
//! store done ──┼─▶ turn machine ─▶ effects ─┼──▶ shared head (apply, fold, reset)
//! timer ───────┘                            └──▶ store, event log, status
//! ```
//!
//! A contribution is decoded and checked in full before the machine sees its header, and applied before the task looks at
//! anything else. Uploads run on other tasks and come back as inputs.

mod checkpoint;
pub mod contract;
mod effects;
mod evaluation;
mod heads;
mod inbox;
mod refusal;
pub mod resume;
mod same_job;
mod status;
mod times;
mod trouble;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use antiphon_core::event::{FinalState, Finished, JobEvent, StepEvent};
use antiphon_core::head::{CheckedContribution, SharedHead};
use antiphon_core::ids::{EvaluationId, JobId, ModalityName, Turn, WorkerId};
use antiphon_core::metrics::EvaluationReport;
use antiphon_core::numerics::{NumericFingerprint, Numerics};
use antiphon_core::spec::JobSpec;
use antiphon_core::time::Time;
use antiphon_core::turn::{Effect, HeadRoom, Input, Rejected, SplitSizes, TurnMachine};
use antiphon_proto::v1;
use antiphon_store::checkpoints::CheckpointStore;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::events::EventLog;
use crate::head_threads::{HeadThreads, Weights};
use crate::journal::Journal;
use crate::stall::Nap;
use checkpoint::{Cut, Pause, Written};
use contract::{INBOX, JobConfig, JobHandle, JobInput, JobState, JobStatus, Workers};
use evaluation::Evaluation;
use heads::GrantedHeads;
use resume::Saved;
use times::JobTimes;
use trouble::Trouble;

/// Starts the task of a job.
#[must_use]
pub fn spawn(config: JobConfig) -> JobHandle {
    let (inbox, inputs) = mpsc::channel(INBOX);
    let (status, watched) = watch::channel(JobStatus::waiting("the job is being prepared"));
    let task = tokio::spawn(async move {
        let (events, id) = (config.events.clone(), config.id.clone());
        match Job::open(config, status.clone()).await {
            Ok((job, completions)) => job.run(inputs, completions).await,
            Err(reason) => {
                error!(job = %id, reason, "the job cannot begin");
                let finished = Finished {
                    job: id,
                    state: FinalState::Failed,
                    reason: Some(reason.clone()),
                    turn: Turn(0),
                    turns: None,
                    checkpoint: None,
                    digest: None,
                    best: None,
                    evaluation: None,
                };
                // The log is open until this task ends.
                let _ = events.append(&JobEvent::Finished(finished));
                status.send_modify(|status| {
                    status.state = JobState::Failed;
                    status.reason = reason;
                });
            }
        }
    });
    JobHandle { inbox, status: watched, task }
}

/// What comes back from other tasks.
#[derive(Debug)]
enum Completion {
    Written(Box<Written>),
    Failed(String),
}

/// A worker that has a place in the job.
#[derive(Debug)]
struct Member {
    modality: ModalityName,
    outbound: mpsc::Sender<v1::CoordinatorMessage>,
    /// Of its encoder, once it is prepared.
    encoding: Option<Encoding>,
    joined: Time,
    /// The checkpoint that it loads its encoder from, until it has.
    restores: Option<Turn>,
    /// What it suffers from the store that it writes to or reads from, as it said last.
    trouble: Trouble,
}

/// What a worker says of its encoder.
#[derive(Debug, Clone, Copy)]
struct Encoding {
    /// Numbers in it.
    parameters: u64,
    fingerprint: NumericFingerprint,
}

/// What the job was asked to do at the next turn boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To end.
    Stop,
    /// To end here, and go on with the next coordinator.
    Suspend,
}

/// What is done when the messages of an input have gone out: nobody waits for it.
#[derive(Debug, Default)]
struct Later {
    /// P is to take in the turn that is over.
    fold: bool,
    /// The step that was taken is to be told of.
    step: Option<StepEvent>,
    /// The epoch is over, and so where its time went.
    times: bool,
}

/// The state of one job's task.
struct Job {
    id: JobId,
    spec: JobSpec,
    modalities: Vec<ModalityName>,
    machine: TurnMachine,
    head: SharedHead<f32>,
    /// Also those that were told to let go of the job and have not yet.
    members: BTreeMap<WorkerId, Member>,
    heads: GrantedHeads,
    room: HeadRoom,
    /// Since when a modality's place has been without a worker that was there before.
    lost: BTreeMap<ModalityName, Time>,
    started: bool,
    /// Inputs that come of effects, for when those are carried out.
    next: VecDeque<Input>,
    giving: bool,
    /// The contribution whose header the machine is looking at.
    incoming: Option<CheckedContribution<f32>>,
    later: Later,
    evaluation: Option<Evaluation>,
    tuned_weights: Option<BTreeMap<ModalityName, f64>>,
    abandoned: Option<EvaluationId>,
    cut: Option<Cut>,
    pause: Option<Pause>,
    /// Writes the manifest; given up with the job.
    completing: Option<AbortOnDropHandle<()>>,
    newest: Option<Saved>,
    /// Samples that the checkpoint to go on from was trained with.
    samples_before: BTreeMap<ModalityName, SplitSizes>,
    numerics: Numerics,
    /// Turns applied, where the machine counts one more whose step failed.
    reached: Option<Turn>,
    /// What it was asked to do at the next turn boundary.
    asked: Option<Asked>,
    /// It is to end, and a worker that is gone is not waited for.
    waits_for_nobody: bool,
    test_report: Option<EvaluationReport>,
    store: CheckpointStore,
    events: EventLog,
    workers: Arc<dyn Workers>,
    threads: HeadThreads,
    journal: Journal,
    trouble: Trouble,
    weights: Weights,
    status: watch::Sender<JobStatus>,
    completions: mpsc::UnboundedSender<Completion>,
    times: JobTimes,
    term: antiphon_core::ids::Term,
    origin: Instant,
}

impl Job {
    async fn open(
        config: JobConfig,
        status: watch::Sender<JobStatus>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Completion>), String> {
        let (classes, width) = (config.spec.labels.classes.count(), config.spec.head.width as usize);
        let turn_batches = config.spec.schedule.turn_batches;
        let trouble = Trouble::default();
        let store = config.store.clone().with_retry(trouble.noting(config.patience, &config.id));
        let (completions, completed) = mpsc::unbounded_channel();
        let (mut samples_before, mut numerics) = (BTreeMap::new(), Numerics::default());
        let (head, position, tuned_weights, newest) = match config.resume {
            Some(resumed) => {
                (samples_before, numerics) = (resumed.samples, resumed.numerics);
                (resumed.head, Some(resumed.position), resumed.tuned_weights, Some(resumed.saved))
            }
            None => {
                let (spec, seed) = (config.spec.head.clone(), config.spec.seed);
                let new = tokio::task::spawn_blocking(move || SharedHead::new(&spec, classes, seed)).await;
                (new.map_err(|error| error.to_string())?, None, None, None)
            }
        };
        checkpoint::clear_up_before(&store, &config.journal, &config.id).await;
        let machine = TurnMachine::new(config.id.clone(), config.term, config.spec.clone(), position, Time(0));
        let job = Self {
            modalities: config.spec.modalities.iter().map(|m| m.name.clone()).collect(),
            id: config.id,
            spec: config.spec,
            machine,
            head,
            members: BTreeMap::new(),
            heads: GrantedHeads::new(classes, width, turn_batches, config.head_room),
            room: HeadRoom::Ample,
            lost: BTreeMap::new(),
            started: false,
            next: VecDeque::new(),
            giving: false,
            incoming: None,
            later: Later::default(),
            evaluation: None,
            tuned_weights,
            abandoned: None,
            cut: None,
            pause: None,
            completing: None,
            newest,
            samples_before,
            numerics,
            reached: None,
            asked: None,
            waits_for_nobody: false,
            test_report: None,
            store,
            events: config.events,
            workers: config.workers,
            threads: config.threads,
            journal: config.journal,
            trouble,
            weights: Weights::of(classes, width),
            status,
            completions,
            times: JobTimes::start(),
            term: config.term,
            origin: Instant::now(),
        };
        Ok((job, completed))
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<JobInput>, mut completions: mpsc::UnboundedReceiver<Completion>) {
        self.report();
        let mut nap = Nap::begin();
        while self.machine.outcome().is_none() {
            // It may have stood still outside of its wait. A head whose step takes as long judges nobody meanwhile either.
            self.wakes_from(nap);
            nap = Nap::begin();
            let deadline = self.machine.next_deadline().map(|(at, _)| self.origin + at.since(Time(0)).to_std());
            let trains = self.machine.granted().is_some();
            tokio::select! {
                // Who has said something is heard before it is judged by its silence.
                biased;
                Some(completion) = completions.recv() => {
                    self.times.waited(trains);
                    self.wakes_from(nap);
                    self.complete(completion);
                }
                input = inputs.recv() => {
                    self.times.waited(trains);
                    self.wakes_from(nap);
                    match input {
                        Some(input) => self.take(input),
                        None => self.give(Input::ShellFailed { reason: "the coordinator is shutting down".to_owned() }),
                    }
                }
                () = nap.or_until(deadline) => {
                    self.times.waited(trains);
                    self.wakes_from(nap);
                    self.give(Input::Tick);
                }
            }
            self.settle().await;
            self.end_without_those_who_are_gone();
            self.events.room().await;
            self.report();
            self.times.lap(|times| &mut times.other);
        }
        self.finish();
    }

    /// Whoever could not be heard because the task stood still has its time anew.
    fn wakes_from(&mut self, nap: Nap) {
        if nap.was_too_long() {
            self.give(Input::Awake);
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Gives the machine an input that it may reject only because it came too late; where the effects of another one are being
    /// carried out, after these.
    fn give(&mut self, input: Input) {
        if self.giving {
            self.next.push_back(input);
        } else if let Err(rejected) = self.try_give(input) {
            info!(job = %self.id, %rejected, "an input came too late");
        }
    }

    /// Gives the machine an input and carries out its effects, in order, and then whatever comes of them.
    fn try_give(&mut self, input: Input) -> Result<(), Rejected> {
        self.giving = true;
        let taken = self.give_one(input);
        while let Some(input) = self.next.pop_front() {
            if let Err(rejected) = self.give_one(input) {
                info!(job = %self.id, %rejected, "an input came too late");
            }
        }
        self.giving = false;
        taken
    }

    fn give_one(&mut self, input: Input) -> Result<(), Rejected> {
        let mut effects: Vec<Effect> = Vec::new();
        let (turn, epochs) = (self.machine.position().turn, self.machine.epochs_done());
        self.machine.step(self.now(), input, &mut effects)?;
        // What the next worker needs is on its way, and P is not needed before it answers.
        if let [.., Effect::Grant { .. }, Effect::EndTurn { .. }] = effects[..] {
            self.later.fold = true;
            effects.pop();
        }
        for effect in effects {
            let applies = matches!(effect, Effect::Apply { .. });
            if let Err(reason) = self.carry_out(effect) {
                // The machine counts the step already, but the head did not take it.
                self.reached = applies.then_some(turn);
                self.later.fold = false;
                // What follows an effect that failed would rest on it.
                self.next.push_front(Input::ShellFailed { reason });
                break;
            }
        }
        if let Some(pause) = &mut self.pause {
            pause.note(self.machine.waits_for_checkpoint());
        }
        self.later.times |= self.machine.epochs_done() > epochs && self.machine.outcome().is_none();
        Ok(())
    }

    /// Does what was left for later, once the messages have gone out.
    async fn settle(&mut self) {
        if !self.later.fold && self.later.step.is_none() && !self.later.times {
            return;
        }
        tokio::task::yield_now().await;
        self.times.lap(|times| &mut times.other);
        let Later { fold, step, times } = std::mem::take(&mut self.later);
        if fold {
            self.fold();
        }
        if let Some(step) = step {
            self.emit(&JobEvent::Step(step));
        }
        if times && self.times.is_long_ago() {
            self.emit_times();
        }
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Written(written) => self.written(*written),
            Completion::Failed(reason) => self.give(Input::ShellFailed { reason }),
        }
    }

    fn emit(&self, event: &JobEvent) {
        if let Err(error) = self.events.append(event) {
            error!(job = %self.id, %error, "an event is lost");
        }
    }

    fn emit_waiting(&self) {
        if let Some(waiting) = self.waiting() {
            let seconds = waiting.waited.to_std().as_secs_f64();
            self.emit(&JobEvent::Waiting { job: self.id.clone(), reason: waiting.reason, seconds });
        }
    }
}
