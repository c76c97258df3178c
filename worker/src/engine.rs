//! The worker's own thread: takes the coordinator's messages one at a time, computes, answers. Everything that touches the
//! device happens here and nowhere else.
//!
//! The order of work is what lets all modalities compute at once: a contribution is sent before the encoder's backward
//! pass, and the next forward pass runs before the next grant is there.
//!
//! It outlives connections. A job that is assigned again after one was lost finds its data open; its encoder is loaded anew,
//! because what it has learnt since the last checkpoint may not be what the head has taken.

mod status;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use antiphon_core::ids::{EvaluationId, JobId, MicroShard, ModalityName, Term, Turn};
use antiphon_core::spec::{JobSpec, ScheduleMode};
use antiphon_core::turn::Progress;
use antiphon_process::in_words;
use antiphon_proto::assignment::{Grant, HeadShape};
use antiphon_proto::chunks::Followed;
use antiphon_proto::evaluation::{Evaluate, LogitsChunk};
use antiphon_proto::parts::PartSaved;
use antiphon_proto::times::Learned;
use antiphon_proto::v1::{
    self, RejectedReason, coordinator_message::Message as Command, worker_message::Message as Answer,
};
use antiphon_proto::{contribution, ids, stream};
use antiphon_store::retry::RetryPolicy;
use anyhow::Context;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use crate::allocator;
use crate::checkpoint;
use crate::config::Config;
use crate::data::{OpenOptions, PrefetchOptions};
use crate::device::{self, Device};
use crate::failure::{Panicked, Refused, may_pass};
use crate::numerics;
use crate::trainer::{Options, Trainer};
use crate::weights::Cache;

use status::Trouble;

pub(crate) use status::Status;

/// The state of the worker's thread.
pub(crate) struct Engine {
    config: Config,
    device: Device,
    status: Arc<Status>,
    /// Leads to the coordinator, as long as there is a connection.
    answers: Option<mpsc::Sender<v1::WorkerMessage>>,
    assignment: Option<Assignment>,
    /// What was at hand when the last connection was lost.
    parked: Option<Assignment>,
}

/// The job at hand.
struct Assignment {
    job: JobId,
    term: Term,
    specification: String,
    head: HeadShape,
    /// Samples per chunk of logits.
    chunk: usize,
    /// Whether the next forward pass runs before its grant is there.
    ahead: bool,
    /// Whether the last order was a grant. What it waits for otherwise is not the head: at first the other workers, then
    /// evaluations and checkpoints.
    trains: bool,
    trainer: Trainer,
    /// The part of a checkpoint that is on its way to the store; it is given up with the job.
    upload: Option<AbortOnDropHandle<()>>,
}

/// What the engine is told.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are messages, so a box would only add an allocation to each")]
pub(crate) enum Order {
    /// A message of the coordinator.
    Command(Received),
    /// There is a new connection, on which nothing is assigned yet.
    Connected(mpsc::Sender<v1::WorkerMessage>),
}

/// A message of the coordinator, and the elements of its tensors that came after it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) command: Command,
    pub(crate) followed: Followed,
}

impl From<Command> for Order {
    fn from(command: Command) -> Self {
        Self::Command(Received { command, followed: Followed::nothing() })
    }
}

/// Starts the thread. It ends when the command channel closes; the receiver then resolves, with an error if it panicked.
pub(crate) fn spawn(mut engine: Engine) -> (mpsc::Sender<Order>, oneshot::Receiver<()>) {
    let (orders, mut queue) = mpsc::channel::<Order>(8);
    let (ended, end) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let name = format!("engine-{}", engine.config.modality);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        loop {
            // What is there already comes first; else the next forward pass, which does not wait for the head.
            let order = match queue.try_recv() {
                Ok(order) => Some(order),
                Err(_) => {
                    engine.compute_ahead();
                    engine.status.got_on(false);
                    queue.blocking_recv()
                }
            };
            engine.status.got_on(true);
            match order {
                Some(Order::Command(received)) => engine.take(&runtime, received),
                Some(Order::Connected(answers)) => engine.connected(answers),
                None => break,
            }
        }
        drop(engine);
        // Nobody may be left to hear of it.
        let _ = ended.send(());
    });
    if let Err(error) = thread {
        warn!(%error, "the engine's thread could not be started");
    }
    (orders, end)
}

impl Engine {
    pub(crate) fn new(config: Config, device: Device, status: Arc<Status>) -> Self {
        Self { config, device, status, answers: None, assignment: None, parked: None }
    }

    /// Whoever is connected now assigns anew what there is to do.
    fn connected(&mut self, answers: mpsc::Sender<v1::WorkerMessage>) {
        self.answers = Some(answers);
        if let Some(mut at) = self.assignment.take() {
            at.upload = None;
            self.parked = Some(at);
        }
        self.status.set_job(None);
    }

    /// Says it to the coordinator. Without a connection there is nobody whom it concerns: the next one begins anew.
    fn answer(&self, answer: Answer) {
        if self.answers.as_ref().is_none_or(|answers| answers.blocking_send(answer.into()).is_err()) {
            debug!("an answer that nobody is there to hear");
        }
    }

    /// The time since the last order went into waiting for this one: for the head, if that was a grant and this is one.
    fn has_waited(&mut self, command: &Command) {
        if let Some(at) = &mut self.assignment {
            let granted = matches!(command, Command::Grant(_));
            let trains = granted && at.trains;
            at.trains = granted;
            at.trainer.watch.lap(|times| if trains { &mut times.waiting } else { &mut times.other });
        }
    }

    /// Carries out one order. What goes wrong, a panic too, is told to the coordinator and ends the worker's part in the job.
    fn take(&mut self, runtime: &tokio::runtime::Handle, order: Received) {
        self.has_waited(&order.command);
        let under = match &order.command {
            Command::Assign(assign) => Some((assign.job.clone(), assign.term)),
            _ => self.assigned(),
        };
        match guarded(|| self.carry_out(runtime, order)) {
            Ok(answers) => answers.into_iter().for_each(|answer| self.answer(answer)),
            Err(error) => self.fail(under, &error),
        }
    }

    /// The next forward pass, unless the schedule is sequential: it needs this modality's encoder only.
    fn compute_ahead(&mut self) {
        if let Err(error) = guarded(|| self.assignment.as_mut().map_or(Ok(()), Assignment::compute_ahead)) {
            self.fail(self.assigned(), &error);
        }
    }

    /// The job and term that failures are told under.
    fn assigned(&self) -> Option<(String, u64)> {
        self.assignment.as_ref().map(|at| (at.job.to_string(), at.term.0))
    }

    /// Drops the job. Without one there is nobody whom it concerns.
    fn fail(&mut self, under: Option<(String, u64)>, error: &anyhow::Error) {
        let (reason, again) = (stream::reason(&in_words(error.as_ref())), may_pass(error));
        self.drop_assignment();
        let Some((job, term)) = under else {
            warn!(reason, "a message that belongs to no job");
            return;
        };
        warn!(job, reason, again, "cannot go on with the job");
        self.answer(Answer::Failed(v1::Failed { job, term, reason, again }));
    }

    fn carry_out(&mut self, runtime: &tokio::runtime::Handle, order: Received) -> anyhow::Result<Vec<Answer>> {
        let Received { command, followed } = order;
        match command {
            Command::Assign(assign) => Ok(vec![self.assign(runtime, &assign)?]),
            Command::Grant(grant) => self.grant(&grant, followed),
            Command::Evaluate(evaluate) => self.evaluate(&evaluate, followed),
            Command::NextLogits(next) => self.next_logits(&next),
            Command::SavePart(save) => self.save(runtime, save),
            Command::Release(release) => Ok(vec![self.release(release)]),
            Command::Rejected(rejected) => self.rejected(&rejected),
            Command::Registered(_) | Command::Chunk(_) => Ok(Vec::new()),
        }
    }

    fn release(&mut self, release: v1::Release) -> Answer {
        info!(job = release.job, reason = release.reason, "released");
        if self.assignment.as_ref().is_some_and(|at| at.job.as_str() == release.job) {
            self.drop_assignment();
        }
        Answer::Released(v1::Released { job: release.job })
    }

    /// The job at hand cannot go on without what was refused.
    fn rejected(&mut self, rejected: &v1::Rejected) -> anyhow::Result<Vec<Answer>> {
        let Some(at) = &self.assignment else {
            debug!(message = rejected.message, "a message was refused, but there is no job");
            return Ok(Vec::new());
        };
        let named = rejected.job.is_empty() || rejected.job == at.job.as_str();
        if !named || rejected.turn.as_ref().is_some_and(|turn| !at.is(&turn.job, turn.term)) {
            warn!(job = rejected.job, message = rejected.message, "a message of another job was refused");
            return Ok(Vec::new());
        }
        let message = rejected.message.clone();
        match rejected.reason() {
            // It has no place in the job any more, and is told so.
            RejectedReason::UnknownJob => {
                info!(message, "the job is no longer this worker's");
                self.drop_assignment();
                Ok(Vec::new())
            }
            reason => Err(Refused { message, again: reason != RejectedReason::Malformed }.into()),
        }
    }

    fn assign(&mut self, runtime: &tokio::runtime::Handle, assign: &v1::Assign) -> anyhow::Result<Answer> {
        let job: JobId = ids::name("assign.job", &assign.job)?;
        let modality: ModalityName = ids::name("assign.modality", &assign.modality)?;
        let spec: JobSpec = JobSpec::from_json(&assign.specification).context("the assigned job's specification")?;
        info!(%job, %modality, "assigned");
        let is_same = |parked: &mut Assignment| {
            parked.job == job && parked.specification == assign.specification && self.config.modality == modality
        };
        let parked = self.parked.take_if(is_same);
        if self.parked.take().is_some() {
            self.give_back();
        }
        let options = Options {
            prefetch: PrefetchOptions { threads: self.config.decode_threads, ..PrefetchOptions::default() },
            data: OpenOptions { memory: self.config.data_memory, ..OpenOptions::default() },
            device: self.device.clone(),
        };
        let head = head_shape(&spec);
        let ahead = spec.schedule.mode == ScheduleMode::Pipelined;
        self.drop_assignment();
        self.status.set_job(Some((job.clone(), Term(assign.term))));
        let (mut trainer, is_new) = match parked {
            Some(parked) => (parked.trainer, false),
            None => (runtime.block_on(Trainer::open(&spec, &modality, options))?, true),
        };
        match &assign.restore {
            Some(url) => {
                let (patience, trouble) = self.patience();
                let loaded = runtime.block_on(checkpoint::load(url, &modality, &self.config.stores, &patience));
                trouble.clear();
                let (encoder, state) = loaded?;
                trainer.restore(&spec, &encoder, &state).with_context(|| format!("checkpoint {url}"))?;
            }
            None => {
                if !is_new {
                    runtime.block_on(trainer.begin_anew(&spec))?;
                }
                runtime.block_on(trainer.begin_from_weights(&Cache::from_environment()))?;
            }
        }
        let samples = trainer.samples();
        let answer = v1::Prepared {
            job: assign.job.clone(),
            term: assign.term,
            samples: Some(v1::SplitSizes { train: samples.train, validation: samples.validation, test: samples.test }),
            parameters: trainer.parameter_shapes(),
            steps_done: trainer.steps_done(),
            numeric_fingerprint: numerics::fingerprint(trainer.precision(), &self.device)?.0,
        };
        self.status.set_steps_done(trainer.steps_done());
        self.assignment = Some(Assignment {
            job,
            term: Term(assign.term),
            specification: assign.specification.clone(),
            head,
            chunk: spec.evaluation.chunk as usize,
            ahead,
            trains: false,
            trainer,
            upload: None,
        });
        Ok(Answer::Prepared(answer))
    }

    /// Z, D, G, h̄ go out at once, unless the head has them already; then dH is made and the encoder learns from it, and says so.
    fn grant(&mut self, message: &v1::Grant, followed: Followed) -> anyhow::Result<Vec<Answer>> {
        let Some(at) = self.assignment.as_mut() else { return Ok(Vec::new()) };
        // Before decoding: the head of another job may have another shape.
        if message.turn.as_ref().is_some_and(|turn| !at.is(&turn.job, turn.term)) {
            return Ok(Vec::new());
        }
        let grant = Grant::decode(message, at.head, followed)?;
        at.trainer.watch.lap(|times| &mut times.exchange);
        let contribution = at.trainer.contribute(&grant.head)?;
        if !grant.replay {
            let answer = Answer::Contribution(contribution::encode(&grant.turn, MicroShard::WHOLE, contribution));
            if self.answers.as_ref().is_none_or(|answers| answers.blocking_send(answer.into()).is_err()) {
                return Ok(Vec::new());
            }
            at.trainer.watch.lap(|times| &mut times.exchange);
        }
        at.trainer.learn(&grant.head, Progress { epoch: grant.progress, epochs: grant.epochs })?;
        self.status.set_steps_done(at.trainer.steps_done());
        let times = at.trainer.watch.take();
        Ok(vec![Answer::Learned(Learned { turn: grant.turn, times }.into())])
    }

    fn evaluate(&mut self, message: &v1::Evaluate, followed: Followed) -> anyhow::Result<Vec<Answer>> {
        let Some(at) = self.at(&message.job, message.term) else { return Ok(Vec::new()) };
        let evaluate = Evaluate::decode(message, at.head, followed)?;
        at.trainer.begin_evaluation(evaluate.evaluation, evaluate.split, evaluate.head, at.chunk);
        Ok(Vec::new())
    }

    fn next_logits(&mut self, next: &v1::NextLogits) -> anyhow::Result<Vec<Answer>> {
        let Some(at) = self.at(&next.job, next.term) else { return Ok(Vec::new()) };
        let chunk = at.trainer.next_logits(EvaluationId(next.evaluation))?;
        let rows: usize = chunk.labels.len();
        debug!(rows, last = chunk.last, "logits");
        at.trainer.watch.lap(|times| &mut times.other);
        let times = chunk.last.then(|| at.trainer.watch.take());
        let chunk = LogitsChunk {
            job: at.job.clone(),
            term: at.term,
            evaluation: EvaluationId(next.evaluation),
            sequence: next.sequence,
            ids: chunk.ids,
            labels: chunk.labels,
            logits: chunk.logits,
            last: chunk.last,
            times,
        };
        Ok(vec![Answer::Logits(chunk.encode())])
    }

    /// Takes the parts as they are now, and lets the upload run beside what comes next.
    fn save(&mut self, runtime: &tokio::runtime::Handle, save: v1::SavePart) -> anyhow::Result<Vec<Answer>> {
        let Some(answers) = self.answers.clone() else { return Ok(Vec::new()) };
        let (patience, trouble) = self.patience();
        let Some(at) = self.at(&save.job, save.term) else { return Ok(Vec::new()) };
        let begun = Instant::now();
        let files = at.trainer.parts()?;
        let snapshot = begun.elapsed();
        let (job, term) = (at.job.clone(), at.term);
        let stores = self.config.stores;
        let upload = runtime.spawn(async move {
            let written = tokio::select! {
                written = checkpoint::save(&save.checkpoint, files, &stores, &patience) => written,
                // Whoever takes this worker's place writes these parts too; two must not.
                () = answers.closed() => return,
            };
            // Before the answer, after which no heartbeat tells of it.
            trouble.clear();
            let answer = match written {
                Ok(parts) => Answer::PartSaved(PartSaved { job, term, turn: Turn(save.turn), parts, snapshot }.into()),
                Err(error) => {
                    let (reason, again) = (stream::reason(&in_words(error.as_ref())), may_pass(&error));
                    Answer::Failed(v1::Failed { job: save.job, term: save.term, reason, again })
                }
            };
            // Without a connection nobody waits for it.
            let _disconnected = answers.send(answer.into()).await;
        });
        at.upload = Some(AbortOnDropHandle::new(upload));
        Ok(Vec::new())
    }

    /// RetryPolicy with a store, whose setbacks heartbeats tell of. The pauses need not differ between workers: the names of their
    /// parts do.
    fn patience(&self) -> (RetryPolicy, Trouble) {
        let trouble = self.status.begin_trouble();
        let told = trouble.clone();
        let patience = RetryPolicy::new(self.config.store_patience, 0).on_retry(move |retry| {
            warn!("{retry}");
            told.note(&retry.to_string());
        });
        (patience, trouble)
    }

    /// The job at hand, if it is the one that a message is about.
    fn at(&mut self, job: &str, term: u64) -> Option<&mut Assignment> {
        self.assignment.as_mut().filter(|at| at.is(job, term))
    }

    fn drop_assignment(&mut self) {
        if self.assignment.take().is_some() {
            self.give_back();
        }
        self.status.set_job(None);
        self.status.set_steps_done(0);
    }

    /// Memory that a job had taken.
    fn give_back(&self) {
        allocator::give_back();
        device::give_back(&self.device);
    }
}

/// The shape of a job's head.
pub(crate) fn head_shape(spec: &JobSpec) -> HeadShape {
    HeadShape { classes: spec.labels.classes.count(), width: spec.head.width as usize }
}

impl Assignment {
    fn compute_ahead(&mut self) -> anyhow::Result<()> {
        self.trainer.watch.lap(|times| &mut times.other);
        if self.ahead { self.trainer.compute_ahead() } else { Ok(()) }
    }

    /// Whether a message is about this job, in this term; others are late and say nothing any more.
    fn is(&self, job: &str, term: u64) -> bool {
        self.job.as_str() == job && self.term.0 == term
    }
}

/// Makes a panic an error: the process goes on, without the job whose state it may have left half changed.
fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message =
            panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(Panicked(message.unwrap_or("it does not say why").to_owned()).into())
    })
}

#[cfg(test)]
mod tests;
