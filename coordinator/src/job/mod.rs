//! One task per job. It runs a loop over the turn machine and four owners, each of which alone writes its part of the
//! job's state:
//!
//! ```text
//! inbox ───────┐                            ┌──▶ membership   workers: slots, messages to them
//! completions ─┼─▶ turn machine ─▶ effects ─┼──▶ head         shared head, replay buffer
//! timer ───────┘        ▲                   ├──▶ checkpoints  files, manifest
//!                       │                   └──▶ evaluations  logits, reports
//!                       └────── inputs ◀─────────────┘
//! ```
//!
//! Invariants:
//!
//! 1. A contribution is decoded and checked in full before the machine sees its header, and applied before the task
//!    processes anything else.
//! 2. Effects of one input are carried out in order. The resulting inputs of the owners are given to the machine after
//!    all effects.
//! 3. Uploads run on separate tasks and return as completions.
//! 4. Owners know the job's `context` and the `turns`, but not each other.

mod checkpoints;
pub mod config;
mod context;
pub mod contract;
mod effects;
mod error;
mod evaluation;
mod head;
mod inbox;
mod membership;
mod refusal;
pub mod resume;
pub mod same_job;
pub mod specification;
mod status;
mod stop_request;
mod store_errors;
mod times;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use antiphon_core::event::{FinalState, Finished, JobEvent, StepEvent};
use antiphon_core::head::SharedHead;
use antiphon_core::numerics::Numerics;
use antiphon_core::spec::JobSpec;
use antiphon_core::time::Time;
use antiphon_core::turn::{Effect, Input, Rejected, TurnMachine};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{Instrument as _, error, info};

use crate::stall::StallDetector;
use checkpoints::{Checkpoints, Completion, Writer};
use config::JobConfig;
use context::Context;
use contract::{INBOX, JobHandle, JobInput, JobState, JobStatus};
use error::JobError;
use evaluation::Evaluations;
use head::JobHead;
use membership::Membership;
use specification::Specification;
use stop_request::StopRequest;
use times::JobTimes;
use turns::Turns;

/// Starts the task of a job.
#[must_use]
pub fn spawn(config: JobConfig) -> JobHandle {
    let (inbox, inputs) = mpsc::channel(INBOX);
    let (status, watched) = watch::channel(JobStatus::waiting("the job is being prepared"));
    let span = tracing::error_span!("job", job = %config.id, term = config.term.0);
    let task = tokio::spawn(run(config, inputs, status).instrument(span));
    JobHandle { inbox, status: watched, task }
}

async fn run(config: JobConfig, inputs: mpsc::Receiver<JobInput>, status: watch::Sender<JobStatus>) {
    let (events, id) = (config.events.clone(), config.id.clone());
    match Job::open(config, status.clone()).await {
        Ok((job, completions)) => job.run(inputs, completions).await,
        Err(reason) => {
            let reason = reason.to_string();
            error!(reason, "the job cannot start");
            let finished = Finished::new(id, FinalState::Failed, Some(reason.clone()));
            // The log is open until this task ends.
            let _open = events.append(&JobEvent::Finished(finished));
            status.send_modify(|status| {
                status.state = JobState::Failed;
                status.reason = reason;
            });
        }
    }
}

/// The state of one job's task.
struct Job {
    context: Arc<Context>,
    turns: Turns,
    head: JobHead,
    membership: Membership,
    checkpoints: Checkpoints,
    evaluations: Evaluations,
    after_send: AfterSend,
    stop: StopRequest,
    times: JobTimes,
    status: watch::Sender<JobStatus>,
}

/// Work that follows after the messages of an input are sent, because no worker waits for it.
#[derive(Debug, Default)]
struct AfterSend {
    /// Whether to fold the ended turn into P.
    fold: bool,
    /// The event of the step that was taken.
    step: Option<StepEvent>,
    /// Whether to emit a `times` event, because an epoch ended.
    times: bool,
}

/// The consequences of an accepted input.
#[derive(Debug, Default)]
struct Following {
    inputs: Vec<Input>,
    /// Why an effect could not be carried out.
    failed: Option<JobError>,
}

impl Job {
    async fn open(
        config: JobConfig,
        status: watch::Sender<JobStatus>,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Completion>), JobError> {
        let JobConfig { id, spec, term, store, resume, events, workers, threads, journal, retry, replay_buffer } =
            config;
        let (mut samples_before, mut numerics) = (BTreeMap::new(), Numerics::default());
        let (head, position, tuned_weights, newest) = match resume {
            Some(resumed) => {
                (samples_before, numerics) = (resumed.samples, resumed.numerics);
                (resumed.head, Some(resumed.position), resumed.tuned_weights, Some(resumed.saved))
            }
            None => (new_head(spec.clone()).await?, None, None, None),
        };
        checkpoints::clean_up_before(&store, &journal).await;
        let machine = TurnMachine::new(id.clone(), term, JobSpec::clone(&spec), position, Time(0));
        let head = JobHead::new(head, spec.schedule.turn_batches, replay_buffer, threads);
        let modalities = spec.modalities.iter().map(|modality| modality.name.clone()).collect();
        let (completions, completed) = mpsc::unbounded_channel();
        let context = Arc::new(Context { id, term, spec, modalities, events, origin: Instant::now() });
        let writer = Writer { store, journal, completions };
        let checkpoints = Checkpoints::new(Arc::clone(&context), writer, retry, newest);
        let job = Self {
            turns: Turns::new(machine),
            head,
            membership: Membership::new(Arc::clone(&context), workers, samples_before, numerics),
            checkpoints,
            evaluations: Evaluations::new(Arc::clone(&context), tuned_weights),
            after_send: AfterSend::default(),
            stop: StopRequest::default(),
            times: JobTimes::start(),
            status,
            context,
        };
        Ok((job, completed))
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<JobInput>, mut completions: mpsc::UnboundedReceiver<Completion>) {
        self.report();
        let mut detector = StallDetector::start();
        while self.turns.machine.outcome().is_none() {
            // The task may have stalled outside its wait. A long step of the head must not expire leases either.
            self.end_stall(detector);
            detector = StallDetector::start();
            let deadline = self.turns.machine.next_deadline().map(|(at, _)| self.context.instant(at));
            let trains = self.turns.machine.granted().is_some();
            tokio::select! {
                // Messages of a worker are processed before its lease is checked.
                biased;
                Some(completion) = completions.recv() => {
                    self.times.waited(trains);
                    self.end_stall(detector);
                    self.complete(completion);
                }
                input = inputs.recv() => {
                    self.times.waited(trains);
                    self.end_stall(detector);
                    match input {
                        Some(input) => self.take(input),
                        None => self.give(Input::ShellFailed { reason: "the coordinator is shutting down".to_owned() }),
                    }
                }
                () = detector.wait_until(deadline) => {
                    self.times.waited(trains);
                    self.end_stall(detector);
                    self.give(Input::Tick);
                }
            }
            self.settle().await;
            self.end_without_missing_workers();
            self.context.events.wait_for_capacity().await;
            self.report();
            self.times.lap(|times| &mut times.other);
        }
        self.finish();
    }

    /// Restarts the leases of workers whose messages could not be read because the task stalled.
    fn end_stall(&mut self, detector: StallDetector) {
        if detector.has_stalled() {
            self.give(Input::StallEnded);
        }
    }

    /// Gives the machine an input that it rejects only if it came too late.
    fn give(&mut self, input: Input) {
        if let Err(rejected) = self.try_give(input) {
            info!(%rejected, "the job ignores an input that came too late");
        }
    }

    /// Gives the machine an input, carries out its effects in order, and then gives it the resulting inputs.
    fn try_give(&mut self, input: Input) -> Result<(), Rejected> {
        let mut queue = VecDeque::new();
        self.give_one(input)?.queue(&mut queue);
        while let Some(input) = queue.pop_front() {
            match self.give_one(input) {
                Ok(following) => following.queue(&mut queue),
                Err(rejected) => info!(%rejected, "the job ignores an input that came too late"),
            }
        }
        Ok(())
    }

    fn give_one(&mut self, input: Input) -> Result<Following, Rejected> {
        let mut effects: Vec<Effect> = Vec::new();
        let machine = &mut self.turns.machine;
        let (turn, epochs) = (machine.position().turn, machine.epochs_done());
        machine.step(self.context.now(), input, &mut effects)?;
        let mut following = Following::default();
        for effect in effects {
            let applies = matches!(effect, Effect::Apply { .. });
            if let Err(error) = self.carry_out(effect, &mut following.inputs) {
                if applies {
                    self.turns.stay_at(turn);
                }
                self.after_send.fold = false;
                // Later effects would depend on the one that failed.
                following.failed = Some(error);
                break;
            }
        }
        let machine = &self.turns.machine;
        self.checkpoints.note_wait(machine.waits_for_checkpoint());
        self.after_send.times |= machine.epochs_done() > epochs && machine.outcome().is_none();
        Ok(following)
    }

    /// Does the work that waits for the messages to be sent.
    async fn settle(&mut self) {
        if !self.after_send.fold && self.after_send.step.is_none() && !self.after_send.times {
            return;
        }
        tokio::task::yield_now().await;
        self.times.lap(|times| &mut times.other);
        let AfterSend { fold, step, times } = std::mem::take(&mut self.after_send);
        if fold {
            self.fold();
        }
        if let Some(step) = step {
            self.context.emit(&JobEvent::Step(step));
        }
        if times && self.times.is_long_ago() {
            self.emit_times();
        }
    }

    fn complete(&mut self, completion: Completion) {
        let input = match completion {
            Ok(written) => self.checkpoints.written(written),
            Err(error) => Input::ShellFailed { reason: error.to_string() },
        };
        self.give(input);
    }
}

impl Following {
    /// Queues the inputs, a failure first.
    fn queue(self, queue: &mut VecDeque<Input>) {
        queue.extend(self.inputs);
        if let Some(error) = self.failed {
            queue.push_front(Input::ShellFailed { reason: error.to_string() });
        }
    }
}

async fn new_head(spec: Specification) -> Result<SharedHead<f32>, JobError> {
    let new = move || SharedHead::new(&spec.head, spec.labels.classes.count(), spec.seed);
    tokio::task::spawn_blocking(new).await.map_err(JobError::NewHead)
}
