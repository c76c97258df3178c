//! One worker's stream, from its first message to its last. The session notifies the job when the worker joins and
//! leaves, forwards its messages, and detects when it falls silent.
//!
//! Invariant: everything about one worker reaches its job in order: joining, messages, leaving. A job processes one
//! message of a worker at a time.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use antiphon_core::ids::JobId;
use antiphon_process::innermost;
use antiphon_proto::assignment::Register;
use antiphon_proto::chunks::{Assembled, Assembler, Followed};
use antiphon_proto::stream::Subject;
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::v1::{self, coordinator_message};
use antiphon_proto::{WireError, stream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::pool::{Assignment, Registration, WorkerState};
use crate::job::contract::JobInput;
use crate::stall::StallDetector;

/// The capacity of the channel to a worker. If it is full, the worker does not read.
pub const OUTBOX: usize = 8;

/// The timeout for the `register` message.
const FIRST_MESSAGE: Duration = Duration::from_secs(10);

/// Why a stream did not start with a registration.
#[derive(Debug, thiserror::Error)]
pub enum FirstMessageError {
    /// No message came in time.
    #[error("no `register` message arrived within {} s", FIRST_MESSAGE.as_secs())]
    TimedOut,
    /// The worker closed its side.
    #[error("the stream ended before a `register` message arrived")]
    Closed,
    /// The first message was another one.
    #[error("the first message of a stream must be `register`")]
    NotRegister,
    /// A name in the message is invalid.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The connection broke, or a message cannot be decoded.
    #[error(transparent)]
    Disconnected(#[from] Status),
}

/// The first message of a stream, which must be a registration.
///
/// # Errors
/// If no message arrived in time, if it was another message, or if a name in it is invalid.
pub async fn first_message(inbound: &mut Streaming<v1::WorkerMessage>) -> Result<Register, FirstMessageError> {
    let first = timeout(FIRST_MESSAGE, inbound.message()).await.map_err(|_| FirstMessageError::TimedOut)??;
    match first.ok_or(FirstMessageError::Closed)?.message {
        Some(Message::Register(register)) => Ok(Register::try_from(register)?),
        Some(_) => Err(FirstMessageError::NotRegister),
        None => Err(WireError::Missing { field: "worker_message.message".to_owned() }.into()),
    }
}

/// A registered worker's stream.
pub struct Session {
    /// The worker's registration in the pool.
    pub registration: Registration,
    /// Messages from the worker.
    pub inbound: Streaming<v1::WorkerMessage>,
    /// Messages to the worker.
    pub outbound: mpsc::Sender<v1::CoordinatorMessage>,
    /// The time without messages after which the worker counts as lost.
    pub silence: Duration,
    /// The token that ends every session.
    pub closing: CancellationToken,
}

/// A worker's job.
struct Current {
    assignment: Assignment,
    /// Whether the worker was asked to release the job.
    releasing: bool,
}

/// A received message, with the elements of its tensors.
struct Incoming<M> {
    message: M,
    followed: Followed,
    subject: Subject,
}

/// Why a session ended.
#[derive(Debug)]
pub enum SessionEnd {
    /// The worker closed its side.
    Closed,
    /// The connection broke, or a message cannot be decoded.
    Disconnected(Status),
    /// A message is malformed, and cannot be answered.
    Malformed(WireError),
    /// The worker does not read its messages.
    Unread,
    /// The worker sent nothing for this long.
    TimedOut(Duration),
    /// The coordinator shuts down.
    Closing,
}

impl Session {
    /// Serves the stream to its end. `ended` receives the reason.
    pub async fn run(self, ended: oneshot::Sender<SessionEnd>) {
        let (worker, modality) = (self.registration.worker(), self.registration.modality());
        let span = tracing::error_span!("session", %worker, %modality);
        self.serve_to_the_end(ended).instrument(span).await;
    }

    async fn serve_to_the_end(mut self, ended: oneshot::Sender<SessionEnd>) {
        let mut current: Option<Current> = None;
        let end = self.serve(&mut current).await;
        let worker = self.registration.worker().clone();
        tracing::info!(why = %end, "the session of a worker has ended");
        if let Some(Current { assignment, .. }) = current {
            // Sent before the registration is dropped, so that the slot is filled again only after the job knows that
            // it is empty.
            let _job_over = assignment.inbox.send(JobInput::WorkerGone { worker, why: end.to_string() }).await;
        }
        drop(self.registration);
        let _reader_gone = ended.send(end);
    }

    async fn serve(&mut self, current: &mut Option<Current>) -> SessionEnd {
        let mut heard = Instant::now();
        let mut assembler = Assembler::default();
        let turnstile = Arc::new(Semaphore::new(1));
        let mut detector = StallDetector::start();
        loop {
            if detector.has_stalled() {
                heard = Instant::now();
            }
            detector = StallDetector::start();
            // A worker with a job may be silent for the duration of the job's lease, if that is longer.
            let silence = current.as_ref().map_or(self.silence, |current| self.silence.max(current.assignment.lease));
            // State changes first, so that a worker whose job is over is released before its stream is closed.
            let step = tokio::select! {
                biased;
                state = self.registration.next_state() => self.on_state(state, current).await,
                () = self.closing.cancelled() => Err(SessionEnd::Closing),
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => {
                        heard = Instant::now();
                        let limit = current.as_ref().map_or(0, |current| current.assignment.message_bytes);
                        match assembler.take(message, limit) {
                            Ok(Assembled::Incomplete) => Ok(()),
                            Ok(Assembled::Whole(message, followed)) => {
                                let subject = subject(&message, current);
                                let incoming = Incoming { message, followed, subject };
                                self.on_message(incoming, &turnstile, current).await
                            }
                            Ok(Assembled::Rejected(message, error)) => self.on_refused(message, &error, current).await,
                            Err(error) => Err(SessionEnd::Malformed(error)),
                        }
                    }
                    Ok(None) => Err(SessionEnd::Closed),
                    Err(status) => Err(SessionEnd::Disconnected(status)),
                },
                () = self.outbound.closed() => Err(SessionEnd::Unread),
                () = detector.wait_until(Some(heard + silence)) => {
                    if detector.has_stalled() {
                        heard = Instant::now();
                    }
                    if heard.elapsed() < silence { Ok(()) } else { Err(SessionEnd::TimedOut(silence)) }
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn on_state(&mut self, state: WorkerState, current: &mut Option<Current>) -> Result<(), SessionEnd> {
        match state {
            WorkerState::Free => *current = None,
            WorkerState::Assigned(assignment) => {
                let joined = JobInput::WorkerJoined {
                    worker: self.registration.worker().clone(),
                    modality: self.registration.modality().clone(),
                    outbound: self.outbound.clone(),
                };
                // The error means that the job is over, which the pool reports next.
                let _job_over = assignment.inbox.send(joined).await;
                *current = Some(Current { assignment, releasing: false });
            }
            WorkerState::Releasing { job, reason } => {
                // Messages that the worker sends before it releases the job still go to the job, which decides whether
                // they are too late.
                if let Some(current) = current {
                    current.releasing = true;
                }
                let release = v1::Release { job: job.to_string(), reason };
                self.tell(coordinator_message::Message::Release(release)).await?;
            }
        }
        Ok(())
    }

    async fn on_refused(
        &mut self,
        envelope: v1::WorkerMessage,
        error: &WireError,
        current: &Option<Current>,
    ) -> Result<(), SessionEnd> {
        // A message that came too late for its job is not rejected as too large, but because there is no job for it.
        let reason = match current {
            Some(_) => v1::RejectedReason::Malformed,
            None => v1::RejectedReason::UnknownJob,
        };
        self.reject(subject(&envelope, current), reason, error.to_string()).await
    }

    async fn on_message(
        &mut self,
        Incoming { message, followed, subject }: Incoming<v1::WorkerMessage>,
        turnstile: &Arc<Semaphore>,
        current: &mut Option<Current>,
    ) -> Result<(), SessionEnd> {
        match stream::open(message) {
            // The worker has given up its job and does not read an answer. Its slot must not wait for it.
            Err(error @ WireError::OutOfRange { .. }) if !subject.is_answered() => Err(SessionEnd::Malformed(error)),
            Err(error) => self.reject(subject, v1::RejectedReason::Malformed, error.to_string()).await,
            Ok((job, Message::Heartbeat(beat))) => {
                self.on_heartbeat(job, beat, current);
                Ok(())
            }
            Ok((_, Message::Released(_))) => {
                if current.as_ref().is_some_and(|current| current.releasing)
                    && let Some(Current { assignment, .. }) = current.take()
                {
                    let worker = self.registration.worker().clone();
                    let gone = JobInput::WorkerGone { worker, why: "it has released the job".to_owned() };
                    let _job_over = assignment.inbox.send(gone).await;
                }
                self.registration.released();
                Ok(())
            }
            Ok((Some(job), message)) => {
                let incoming = Incoming { message, followed, subject };
                self.pass_on(&job, incoming, turnstile, current).await
            }
            Ok((None, _)) => {
                let what = "`register` is allowed only once, at the beginning of a stream".to_owned();
                self.reject(subject, v1::RejectedReason::Unexpected, what).await
            }
        }
    }

    /// Forwards a heartbeat to the job. If the job's inbox is full, the heartbeat is dropped; the next one renews the
    /// lease.
    fn on_heartbeat(&self, job: Option<JobId>, beat: v1::Heartbeat, current: &Option<Current>) {
        if let Some(Current { assignment, releasing: false }) = current
            && job.as_ref() == Some(&assignment.job)
        {
            let worker = self.registration.worker().clone();
            let v1::Heartbeat { progress, busy, store_error, .. } = beat;
            let store_error = Some(store_error).filter(|error| !error.is_empty());
            let input = JobInput::Heartbeat { worker, progress, busy, store_error };
            let _full_or_over = assignment.inbox.try_send(input);
        }
    }

    async fn pass_on(
        &mut self,
        job: &JobId,
        Incoming { message, followed, subject }: Incoming<Message>,
        turnstile: &Arc<Semaphore>,
        current: &Option<Current>,
    ) -> Result<(), SessionEnd> {
        let worker = self.registration.worker().clone();
        match current {
            Some(Current { assignment, releasing }) if assignment.job == *job => {
                let since = Instant::now();
                // The job processes one message of a worker at a time, however fast the worker sends.
                let Ok(turnstile) = Arc::clone(turnstile).acquire_owned().await else { return Ok(()) };
                let input = JobInput::FromWorker { worker: worker.clone(), message, followed, since, turnstile };
                let sent = assignment.inbox.send(input).await;
                if sent.is_err() && *releasing {
                    let what = format!("job `{job}` is over");
                    return self.reject(subject, v1::RejectedReason::UnknownJob, what).await;
                }
                // Otherwise the error means that the job is over, which the pool reports next.
                Ok(())
            }
            _ => {
                let what = format!("worker `{worker}` has no slot in job `{job}`");
                self.reject(subject, v1::RejectedReason::UnknownJob, what).await
            }
        }
    }

    async fn reject(
        &mut self,
        subject: Subject,
        reason: v1::RejectedReason,
        message: String,
    ) -> Result<(), SessionEnd> {
        tracing::debug!(?reason, why = message, "the coordinator rejected a message from a worker");
        match subject.rejected(reason, message) {
            Some(rejected) => self.tell(coordinator_message::Message::Rejected(rejected)).await,
            None => Ok(()),
        }
    }

    /// Sends a message to the worker. A worker that does not read for the time in which it may be silent counts as
    /// lost.
    async fn tell(&mut self, message: coordinator_message::Message) -> Result<(), SessionEnd> {
        match timeout(self.silence, self.outbound.send(message.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(SessionEnd::Unread),
        }
    }
}

/// The subject of a message. If the message names no job, the worker's job.
fn subject(envelope: &v1::WorkerMessage, current: &Option<Current>) -> Subject {
    let mut subject = envelope.message.as_ref().map_or_else(Subject::nothing, Subject::of);
    if subject.job.is_none() {
        subject.job = current.as_ref().map(|current| current.assignment.job.clone());
    }
    subject
}

impl std::fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed its stream"),
            Self::Disconnected(status) => match status.source() {
                Some(error) => write!(f, "its connection is lost: {}", innermost(error)),
                None => write!(f, "its connection is lost: {}", status.message()),
            },
            Self::Malformed(error) => write!(f, "its connection is lost: {error}"),
            Self::Unread => f.write_str("it stopped reading"),
            Self::TimedOut(silence) => write!(f, "it sent nothing for {:.1} s", silence.as_secs_f64()),
            Self::Closing => f.write_str("the coordinator is shutting down"),
        }
    }
}
