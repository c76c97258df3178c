//! The worker's computing thread: it processes the coordinator's messages one at a time, computes and answers. Only
//! this thread uses the device.
//!
//! The order of work lets all modalities compute at the same time: a contribution is sent before the encoder's backward
//! pass, and the next forward pass runs before the next grant arrives.
//!
//! It outlives connections. If a job is assigned again after a lost connection, its data are still open. Its encoder is
//! loaded again, because the head may not have taken the steps since the last checkpoint.

mod assignment;
mod status;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use antiphon_core::spec::{JobSpec, ScheduleMode};
use antiphon_data::{OpenOptions, PrefetchOptions};
use antiphon_model::device::{self, Device};
use antiphon_model::weights::Cache;
use antiphon_model::{allocator, numerics};
use antiphon_process::full_message;
use antiphon_proto::assignment::HeadShape;
use antiphon_proto::chunks::Followed;
use antiphon_proto::stream;
use antiphon_proto::v1::{
    self, RejectedReason, coordinator_message::Message as Command, worker_message::Message as Answer,
};
use antiphon_store::retry::RetryPolicy;
use tokio::sync::{mpsc, oneshot};
use tracing::{Span, debug, info, info_span, warn};

use crate::assigned::{Assigned, Under};
use crate::checkpoint;
use crate::config::Config;
use crate::failure::Failure;
use crate::stores::stores;
use crate::trainer::{Machine, Options, Trainer};

use assignment::{Assignment, Upload};
use status::StoreError;

pub(crate) use status::Status;

/// The state of the engine's thread.
pub(crate) struct Engine {
    config: Config,
    device: Device,
    status: Arc<Status>,
    /// The channel to the coordinator, while there is a connection.
    answers: Option<mpsc::Sender<v1::WorkerMessage>>,
    assignment: Option<Assignment>,
    /// The job when the last connection was lost.
    parked: Option<Assignment>,
}

/// An order of the session to the engine.
#[derive(Debug)]
pub(crate) enum Order {
    /// A message of the coordinator.
    Command(Received),
    /// A job, or why its assignment cannot be read.
    Assign(Under, Result<Box<Assigned>, Failure>),
    /// There is a new connection, on which no job is assigned yet.
    Connected(mpsc::Sender<v1::WorkerMessage>),
}

/// A message of the coordinator, and the elements of its tensors that followed it.
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

/// Starts the thread. It ends when the command channel closes; the receiver then resolves, with an error if it
/// panicked.
pub(crate) fn spawn(mut engine: Engine) -> (mpsc::Sender<Order>, oneshot::Receiver<()>) {
    let (orders, mut queue) = mpsc::channel::<Order>(8);
    let (ended, end) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let name = format!("engine-{}", engine.config.modality);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        loop {
            // Waiting orders come first. Without any, the next forward pass runs, which does not need the head.
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
        // The session may have ended already.
        let _ = ended.send(());
    });
    if let Err(error) = thread {
        warn!(%error, "the worker cannot start its computing thread");
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

    /// Sends an answer to the coordinator. Without a connection the answer is dropped, because the next connection
    /// starts over.
    fn answer(&self, answer: Answer) {
        if self.answers.as_ref().is_none_or(|answers| answers.blocking_send(answer.into()).is_err()) {
            debug!("the worker drops an answer, because it has no connection to the coordinator");
        }
    }

    /// Counts the time since the last order as waiting: for the head, if both orders were grants.
    fn has_waited(&mut self, granted: bool) {
        if let Some(at) = &mut self.assignment {
            let trains = granted && at.trains;
            at.trains = granted;
            at.trainer.watch.lap(|times| if trains { &mut times.waiting } else { &mut times.other });
        }
    }

    /// Carries out one order. Any failure, even a panic, is reported to the coordinator and ends the worker's part in
    /// the job.
    fn take(&mut self, runtime: &tokio::runtime::Handle, order: Received) {
        self.has_waited(matches!(order.command, Command::Grant(_)));
        let under = self.under();
        let _span = self.assignment.as_ref().map(|at| at.span.clone().entered());
        match guarded(|| self.carry_out(runtime, order)) {
            Ok(answers) => answers.into_iter().for_each(|answer| self.answer(answer)),
            Err(error) => self.fail(under, &error),
        }
    }

    /// Opens a job, or reports why it cannot be opened.
    fn take_job(&mut self, runtime: &tokio::runtime::Handle, under: Under, assigned: Result<Box<Assigned>, Failure>) {
        self.has_waited(false);
        let span = info_span!("job", job = under.job, modality = %self.config.modality);
        let _entered = span.clone().entered();
        match guarded(|| self.assign(runtime, *assigned?, span)) {
            Ok(answer) => self.answer(answer),
            Err(error) => self.fail(Some(under), &error),
        }
    }

    /// Runs the next forward pass, unless the schedule is sequential. It needs only this modality's encoder.
    fn compute_ahead(&mut self) {
        if let Err(error) = guarded(|| self.assignment.as_mut().map_or(Ok(()), Assignment::compute_ahead)) {
            self.fail(self.under(), &error);
        }
    }

    /// The job and term that failures are reported under.
    fn under(&self) -> Option<Under> {
        self.assignment.as_ref().map(|at| Under { job: at.job.to_string(), term: at.term.0 })
    }

    /// Drops the job and reports the failure. Without a job, the failure is only logged.
    fn fail(&mut self, under: Option<Under>, error: &Failure) {
        let (reason, transient) = (stream::reason(&full_message(error)), error.is_transient());
        self.drop_assignment();
        let Some(Under { job, term }) = under else {
            warn!(reason, "the worker cannot process a message, and has no job to fail");
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
            debug!(message = rejected.message, "the coordinator rejected a message of this worker, which has no job");
            return Ok(Vec::new());
        };
        let named = rejected.job.is_empty() || rejected.job == at.job.as_str();
        if !named || rejected.turn.as_ref().is_some_and(|turn| !at.is(&turn.job, turn.term)) {
            warn!(
                job = rejected.job,
                message = rejected.message,
                "the coordinator rejected a message about another job"
            );
            return Ok(Vec::new());
        }
        let message = rejected.message.clone();
        match rejected.reason() {
            // The worker has lost its slot in the job.
            RejectedReason::UnknownJob => {
                info!(message, "this worker has lost its slot in the job");
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

    /// The options of trainers on this machine.
    fn options(&self) -> Options {
        Options {
            prefetch: PrefetchOptions { threads: self.config.decode_threads, ..PrefetchOptions::default() },
            data: OpenOptions { memory: self.config.data_memory, ..OpenOptions::new(stores()) },
            machine: Machine { device: self.device.clone(), encoders: self.config.encoders.clone() },
        }
    }

    /// Restores the trainer from a checkpoint.
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

    fn grant(&mut self, message: &v1::Grant, followed: Followed) -> Result<Vec<Answer>, Failure> {
        let Some(at) = self.assignment.as_mut() else { return Ok(Vec::new()) };
        let answers = self.answers.as_ref();
        let send = |answer: Answer| answers.is_some_and(|answers| answers.blocking_send(answer.into()).is_ok());
        let learned = at.grant(message, followed, send)?;
        if learned.is_some() {
            self.status.set_steps_done(at.trainer.steps_done());
        }
        Ok(learned.into_iter().collect())
    }

    fn evaluate(&mut self, message: &v1::Evaluate, followed: Followed) -> Result<Vec<Answer>, Failure> {
        if let Some(at) = self.at(&message.job, message.term) {
            at.evaluate(message, followed)?;
        }
        Ok(Vec::new())
    }

    fn next_logits(&mut self, next: &v1::NextLogits) -> Result<Vec<Answer>, Failure> {
        match self.at(&next.job, next.term) {
            Some(at) => Ok(vec![at.next_logits(next)?]),
            None => Ok(Vec::new()),
        }
    }

    fn save(&mut self, runtime: &tokio::runtime::Handle, save: v1::SaveFiles) -> Result<Vec<Answer>, Failure> {
        let Some(answers) = self.answers.clone() else { return Ok(Vec::new()) };
        let ((retry, store_error), stores) = (self.retry_policy(), self.config.stores);
        if let Some(at) = self.at(&save.job, save.term) {
            at.save(runtime, save, Upload { answers, stores, retry, store_error })?;
        }
        Ok(Vec::new())
    }

    /// The retry policy of store requests, whose errors heartbeats report. The names of files give workers different
    /// pauses.
    fn retry_policy(&self) -> (RetryPolicy, StoreError) {
        let store_error = self.status.begin_store_request();
        let told = store_error.clone();
        let policy = RetryPolicy::new(self.config.store_retry_timeout, 0).on_retry(move |retry| {
            warn!(store_error = %retry, "a request to the store of checkpoints failed; the worker retries it");
            told.note(&retry.to_string());
        });
        (policy, store_error)
    }

    /// The assigned job, if a message is about it.
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

/// Turns a panic into an error. The process continues without the job, whose state may be inconsistent.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message =
            panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(Failure::Panicked(message.unwrap_or("the panic has no message").to_owned()))
    })
}

#[cfg(test)]
mod tests;
