//! The worker's own thread: takes the coordinator's messages one at a time, computes, answers. Everything that touches the
//! device happens here and nowhere else.
//!
//! The order of work is what lets all modalities compute at once: a contribution is sent before the encoder's backward
//! pass, and the next forward pass runs before the next grant is there.
//!
//! It outlives connections. A job that is assigned again after one was lost finds its data open; its encoder is loaded again,
//! because what it has learnt since the last checkpoint may not be what the head has taken.

mod status;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use antiphon_core::ids::{EvaluationId, JobId, MicroShard, Term, Turn};
use antiphon_core::spec::{JobSpec, ScheduleMode};
use antiphon_core::turn::Progress;
use antiphon_data::{OpenOptions, PrefetchOptions};
use antiphon_model::device::{self, Device};
use antiphon_model::weights::Cache;
use antiphon_model::{allocator, numerics};
use antiphon_process::full_message;
use antiphon_proto::assignment::{Grant, HeadShape};
use antiphon_proto::chunks::Followed;
use antiphon_proto::evaluation::{Evaluate, LogitsChunk};
use antiphon_proto::files::FilesSaved;
use antiphon_proto::times::Learned;
use antiphon_proto::v1::{
    self, RejectedReason, coordinator_message::Message as Command, worker_message::Message as Answer,
};
use antiphon_proto::{contribution, stream};
use antiphon_store::retry::RetryPolicy;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Span, debug, info, info_span, warn};

use crate::assigned::{Assigned, Under};
use crate::checkpoint;
use crate::config::Config;
use crate::failure::Failure;
use crate::stores::stores;
use crate::trainer::{Machine, Options, Trainer};

use status::StoreError;

pub(crate) use status::Status;

/// The state of the engine's thread.
pub(crate) struct Engine {
    config: Config,
    device: Device,
    status: Arc<Status>,
    /// To the coordinator, while there is a connection.
    answers: Option<mpsc::Sender<v1::WorkerMessage>>,
    assignment: Option<Assignment>,
    /// The job at the time the last connection was lost.
    parked: Option<Assignment>,
}

/// The assigned job.
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
    /// What log messages about the job carry.
    span: Span,
    /// The upload of a checkpoint's files; it is cancelled with the job.
    upload: Option<AbortOnDropHandle<()>>,
}

/// What the session tells the engine.
#[derive(Debug)]
pub(crate) enum Order {
    /// A message of the coordinator.
    Command(Received),
    /// A job, or why its assignment cannot be read.
    Assign(Under, Result<Box<Assigned>, Failure>),
    /// There is a new connection, on which nothing is assigned yet.
    Connected(mpsc::Sender<v1::WorkerMessage>),
}

/// A message of the coordinator, and the elements of its tensors that came after it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) command: Command,
    pub(crate) followed: Followed,
}

impl From<Received> for Order {
    fn from(received: Received) -> Self {
        Self::Command(received)
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
                Some(Order::Assign(under, assigned)) => engine.take_job(&runtime, under, assigned),
                Some(Order::Connected(answers)) => engine.connected(answers),
                None => break,
            }
        }
        drop(engine);
        // The session may have ended before.
        let _ = ended.send(());
    });
    if let Err(error) = thread {
        warn!(%error, "the worker cannot start its engine's thread");
    }
    (orders, end)
}

impl Engine {
    pub(crate) fn new(config: Config, device: Device, status: Arc<Status>) -> Self {
        Self { config, device, status, answers: None, assignment: None, parked: None }
    }

    /// A coordinator assigns each job again on a new connection.
    fn connected(&mut self, answers: mpsc::Sender<v1::WorkerMessage>) {
        self.answers = Some(answers);
        if let Some(mut at) = self.assignment.take() {
            at.upload = None;
            self.parked = Some(at);
        }
        self.status.set_job(None);
    }

    /// Sends an answer to the coordinator. Without a connection it is dropped: the next connection starts over.
    fn answer(&self, answer: Answer) {
        if self.answers.as_ref().is_none_or(|answers| answers.blocking_send(answer.into()).is_err()) {
            debug!("the worker drops an answer: there is no connection to the coordinator");
        }
    }

    /// The time since the last order was spent waiting for this one: for the head, if both were grants.
    fn has_waited(&mut self, granted: bool) {
        if let Some(at) = &mut self.assignment {
            let trains = granted && at.trains;
            at.trains = granted;
            at.trainer.watch.lap(|times| if trains { &mut times.waiting } else { &mut times.other });
        }
    }

    /// Carries out one order. Any failure, a panic too, is reported to the coordinator and ends the worker's part in the job.
    fn take(&mut self, runtime: &tokio::runtime::Handle, order: Received) {
        self.has_waited(matches!(order.command, Command::Grant(_)));
        let under = self.under();
        let _span = self.assignment.as_ref().map(|at| at.span.clone().entered());
        match guarded(|| self.carry_out(runtime, order)) {
            Ok(answers) => answers.into_iter().for_each(|answer| self.answer(answer)),
            Err(error) => self.fail(under, &error),
        }
    }

    /// Opens a job, or says why it cannot.
    fn take_job(&mut self, runtime: &tokio::runtime::Handle, under: Under, assigned: Result<Box<Assigned>, Failure>) {
        self.has_waited(false);
        let span = info_span!("job", job = under.job, modality = %self.config.modality);
        let _entered = span.clone().entered();
        match guarded(|| self.assign(runtime, *assigned?, span)) {
            Ok(answer) => self.answer(answer),
            Err(error) => self.fail(Some(under), &error),
        }
    }

    /// The next forward pass, unless the schedule is sequential: it needs this modality's encoder only.
    fn compute_ahead(&mut self) {
        if let Err(error) = guarded(|| self.assignment.as_mut().map_or(Ok(()), Assignment::compute_ahead)) {
            self.fail(self.under(), &error);
        }
    }

    /// The job and term that failures are reported under.
    fn under(&self) -> Option<Under> {
        self.assignment.as_ref().map(|at| Under { job: at.job.to_string(), term: at.term.0 })
    }

    /// Drops the job and reports the failure. Without a job there is nothing to report it under.
    fn fail(&mut self, under: Option<Under>, error: &Failure) {
        let (reason, transient) = (stream::reason(&full_message(error)), error.is_transient());
        self.drop_assignment();
        let Some(Under { job, term }) = under else {
            warn!(reason, "the worker cannot use a message, which belongs to no job");
            return;
        };
        warn!(job, reason, transient, "the worker fails its job");
        self.answer(Answer::Failed(v1::Failed { job, term, reason, transient }));
    }

    fn carry_out(&mut self, runtime: &tokio::runtime::Handle, order: Received) -> Result<Vec<Answer>, Failure> {
        let Received { command, followed } = order;
        match command {
            Command::Grant(grant) => self.grant(&grant, followed),
            Command::Evaluate(evaluate) => self.evaluate(&evaluate, followed),
            Command::NextLogits(next) => self.next_logits(&next),
            Command::SaveFiles(save) => self.save(runtime, save),
            Command::Release(release) => Ok(vec![self.release(release)]),
            Command::Rejected(rejected) => self.rejected(&rejected),
            // The session turns an `assign` into an `Order::Assign`.
            Command::Assign(_) | Command::Registered(_) | Command::Chunk(_) => Ok(Vec::new()),
        }
    }

    fn release(&mut self, release: v1::Release) -> Answer {
        info!(job = release.job, reason = release.reason, "the coordinator releases this worker from the job");
        if self.assignment.as_ref().is_some_and(|at| at.job.as_str() == release.job) {
            self.drop_assignment();
        }
        Answer::Released(v1::Released { job: release.job })
    }

    /// The job cannot continue without the message that was rejected.
    fn rejected(&mut self, rejected: &v1::Rejected) -> Result<Vec<Answer>, Failure> {
        let Some(at) = &self.assignment else {
            debug!(message = rejected.message, "the coordinator rejected a message, but there is no job");
            return Ok(Vec::new());
        };
        let named = rejected.job.is_empty() || rejected.job == at.job.as_str();
        if !named || rejected.turn.as_ref().is_some_and(|turn| !at.is(&turn.job, turn.term)) {
            warn!(job = rejected.job, message = rejected.message, "the coordinator rejected a message of another job");
            return Ok(Vec::new());
        }
        let message = rejected.message.clone();
        match rejected.reason() {
            // The worker has lost its slot in the job.
            RejectedReason::UnknownJob => {
                info!(message, "the coordinator has taken the job from this worker");
                self.drop_assignment();
                Ok(Vec::new())
            }
            reason => Err(Failure::Rejected { message, transient: reason != RejectedReason::Malformed }),
        }
    }

    fn assign(&mut self, runtime: &tokio::runtime::Handle, assigned: Assigned, span: Span) -> Result<Answer, Failure> {
        let Assigned { job, term, modality, spec, specification, restore } = assigned;
        info!(%job, %modality, "the coordinator assigns a job");
        let is_same = |parked: &mut Assignment| {
            parked.job == job && parked.specification == specification && self.config.modality == modality
        };
        let parked = self.parked.take_if(is_same);
        if self.parked.take().is_some() {
            self.give_back();
        }
        self.drop_assignment();
        self.status.set_job(Some((job.clone(), term)));
        let (mut trainer, is_new) = match parked {
            Some(parked) => (parked.trainer, false),
            None => (runtime.block_on(Trainer::open(&spec, &modality, self.options()))?, true),
        };
        match restore {
            Some(url) => self.restore(runtime, &mut trainer, &spec, url)?,
            None => {
                if !is_new {
                    runtime.block_on(trainer.restart(&spec))?;
                }
                runtime.block_on(trainer.begin_from_weights(&Cache::from_environment(stores())))?;
            }
        }
        let samples = trainer.samples();
        let answer = v1::Prepared {
            job: job.to_string(),
            term: term.0,
            samples: Some(v1::SplitSizes { train: samples.train, validation: samples.validation, test: samples.test }),
            parameters: trainer.parameter_shapes().map(tensor_summary).collect(),
            steps_done: trainer.steps_done(),
            numeric_fingerprint: numerics::fingerprint(trainer.precision(), &self.device)?.0,
        };
        self.status.set_steps_done(trainer.steps_done());
        self.assignment = Some(Assignment {
            job,
            term,
            specification,
            head: head_shape(&spec),
            chunk: spec.evaluation.chunk as usize,
            ahead: spec.schedule.mode == ScheduleMode::Pipelined,
            trains: false,
            trainer,
            span,
            upload: None,
        });
        Ok(Answer::Prepared(answer))
    }

    /// How a trainer uses this machine.
    fn options(&self) -> Options {
        Options {
            prefetch: PrefetchOptions { threads: self.config.decode_threads, ..PrefetchOptions::default() },
            data: OpenOptions { memory: self.config.data_memory, ..OpenOptions::new(stores()) },
            machine: Machine { device: self.device.clone(), encoders: self.config.encoders.clone() },
        }
    }

    /// Sets the trainer to what a checkpoint holds.
    fn restore(
        &self,
        runtime: &tokio::runtime::Handle,
        trainer: &mut Trainer,
        spec: &JobSpec,
        url: String,
    ) -> Result<(), Failure> {
        let (retry, store_error) = self.retry_policy();
        let loaded = runtime.block_on(checkpoint::load(&url, trainer.modality(), &self.config.stores, &retry));
        store_error.clear();
        let (encoder, state) = loaded?;
        trainer.restore(spec, &encoder, &state).map_err(|source| Failure::Restore { url, source: source.into() })
    }

    /// Z, D, G, h̄ go out at once, unless the head has them already; then dH is made and the encoder learns from it, and says so.
    fn grant(&mut self, message: &v1::Grant, followed: Followed) -> Result<Vec<Answer>, Failure> {
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

    fn evaluate(&mut self, message: &v1::Evaluate, followed: Followed) -> Result<Vec<Answer>, Failure> {
        let Some(at) = self.at(&message.job, message.term) else { return Ok(Vec::new()) };
        let evaluate = Evaluate::decode(message, at.head, followed)?;
        at.trainer.begin_evaluation(evaluate.evaluation, evaluate.split, evaluate.head, at.chunk);
        Ok(Vec::new())
    }

    fn next_logits(&mut self, next: &v1::NextLogits) -> Result<Vec<Answer>, Failure> {
        let Some(at) = self.at(&next.job, next.term) else { return Ok(Vec::new()) };
        let chunk = at.trainer.next_logits(EvaluationId(next.evaluation))?;
        let rows: usize = chunk.labels.len();
        debug!(rows, last = chunk.last, "the worker has computed logits");
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

    /// Takes a snapshot of the files. The upload runs beside the next steps.
    fn save(&mut self, runtime: &tokio::runtime::Handle, save: v1::SaveFiles) -> Result<Vec<Answer>, Failure> {
        let Some(answers) = self.answers.clone() else { return Ok(Vec::new()) };
        let ((retry, store_error), stores) = (self.retry_policy(), self.config.stores);
        let Some(at) = self.at(&save.job, save.term) else { return Ok(Vec::new()) };
        let begun = Instant::now();
        let files = at.trainer.files()?;
        let snapshot = begun.elapsed();
        let (job, term) = (at.job.clone(), at.term);
        let upload = runtime.spawn(async move {
            let written = tokio::select! {
                written = checkpoint::save(&save.checkpoint, files, &stores, &retry) => written,
                // The worker that takes over the slot writes these files too; two must not.
                () = answers.closed() => return,
            };
            // Before the answer, after which no heartbeat tells of it.
            store_error.clear();
            let answer = match written {
                Ok(files) => {
                    Answer::FilesSaved(FilesSaved { job, term, turn: Turn(save.turn), files, snapshot }.into())
                }
                Err(error) => {
                    let error = Failure::from(error);
                    let (reason, transient) = (stream::reason(&full_message(&error)), error.is_transient());
                    Answer::Failed(v1::Failed { job: save.job, term: save.term, reason, transient })
                }
            };
            // Without a connection the coordinator does not wait for it.
            let _disconnected = answers.send(answer.into()).await;
        });
        at.upload = Some(AbortOnDropHandle::new(upload));
        Ok(Vec::new())
    }

    /// Retries of store requests, which heartbeats report. The pauses need not differ between workers, because the names of their
    /// files do.
    fn retry_policy(&self) -> (RetryPolicy, StoreError) {
        let store_error = self.status.begin_store_request();
        let told = store_error.clone();
        let policy = RetryPolicy::new(self.config.store_retry_timeout, 0).on_retry(move |retry| {
            warn!(store_error = %retry, "the worker retries a store of checkpoints");
            told.note(&retry.to_string());
        });
        (policy, store_error)
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

    /// Returns a job's memory to the system and the device.
    fn give_back(&self) {
        allocator::give_back();
        device::give_back(&self.device);
    }
}

fn tensor_summary((name, shape): (&str, &[usize])) -> v1::TensorSummary {
    v1::TensorSummary { name: name.to_owned(), shape: shape.iter().map(|length| *length as u64).collect() }
}

/// The shape of a job's head.
pub(crate) fn head_shape(spec: &JobSpec) -> HeadShape {
    HeadShape { classes: spec.labels.classes.count(), width: spec.head.width as usize }
}

impl Assignment {
    fn compute_ahead(&mut self) -> Result<(), Failure> {
        self.trainer.watch.lap(|times| &mut times.other);
        if self.ahead { Ok(self.trainer.compute_ahead()?) } else { Ok(()) }
    }

    /// Whether a message is about this job, in this term; others are late and say nothing any more.
    fn is(&self, job: &str, term: u64) -> bool {
        self.job.as_str() == job && self.term.0 == term
    }
}

/// Makes a panic an error. The process continues without the job, whose state may be inconsistent.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message =
            panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(Failure::Panicked(message.unwrap_or("it does not say why").to_owned()))
    })
}

#[cfg(test)]
mod tests;
