//! The worker's end of the training stream: it registers, and forwards messages between the socket and the engine. It
//! never computes.

use std::sync::Arc;
use std::time::Duration;

use antiphon_model::device;
use antiphon_proto::chunks::{Assembled, Assembler, Followed, chunked};
use antiphon_proto::v1::coordinator_message::Message;
use antiphon_proto::v1::{self, training_service_client::TrainingServiceClient, worker_message};
use antiphon_proto::{MESSAGE_LIMIT, stream};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::assigned::{Assigned, Under};
use crate::config::Config;
use crate::dial::{Connection, WorkerError};
use crate::engine::{self, Engine, Order, Received, Status};

/// The number of messages in flight per direction. The protocol needs two (an answer and a heartbeat).
const IN_FLIGHT: usize = 8;

/// The shortest interval between heartbeats, for any lease.
const SHORTEST_BEAT: Duration = Duration::from_millis(20);

/// Serves jobs until `shutdown`, and reconnects according to the configuration.
///
/// # Errors
/// If the device cannot be used, or the coordinator cannot be reached in time or rejects this worker.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), WorkerError> {
    let choice = config.device;
    let device = tokio::task::spawn_blocking(move || choice.open());
    let device = device.await.map_err(|error| WorkerError::Engine { reason: error.to_string() })??;
    let name = device::name(&device);
    let status = Arc::new(Status::default());
    let (orders, mut ended) = engine::spawn(Engine::new(config.clone(), device, Arc::clone(&status)));
    let mut dial = Connection::new(&config)?;
    let work = async {
        loop {
            let channel = tokio::select! {
                channel = dial.connect() => channel?,
                () = shutdown.cancelled() => return Ok(()),
            };
            let mut session = Session { config: &config, device: &name, orders: &orders, status: &status };
            let span = info_span!("session", worker = %config.worker, modality = %config.modality);
            match session.serve(channel, &mut dial, &shutdown).instrument(span).await {
                Ok(()) => return Ok(()),
                Err(error) if shutdown.is_cancelled() => {
                    debug!(%error, "the connection is lost while this worker stops");
                    return Ok(());
                }
                Err(error) => dial.lost(error)?,
            }
        }
    };
    tokio::select! {
        done = work => done,
        engine = &mut ended => {
            let reason = engine.map_or_else(|_| "it panicked".to_owned(), |()| "its thread ended".to_owned());
            Err(WorkerError::Engine { reason })
        }
        () = long_after(&shutdown, config.grace) => {
            warn!(worker = %config.worker, "the coordinator does not answer; the worker stops without it");
            Ok(())
        }
    }
}

/// Resolves a second after the grace period, when the coordinator is no longer expected to answer.
async fn long_after(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(grace + Duration::from_secs(1)).await;
}

/// One connection.
struct Session<'a> {
    config: &'a Config,
    device: &'a str,
    orders: &'a mpsc::Sender<Order>,
    status: &'a Status,
}

impl Session<'_> {
    /// Registers, and forwards messages until the connection is lost or this worker has stopped on request.
    async fn serve(
        &mut self,
        channel: Channel,
        dial: &mut Connection,
        shutdown: &CancellationToken,
    ) -> Result<(), WorkerError> {
        let (outbound, messages) = mpsc::channel(IN_FLIGHT);
        let register = v1::Register {
            worker: self.config.worker.to_string(),
            modality: self.config.modality.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.device.to_owned(),
        };
        let closed = |_| WorkerError::lost("the connection closed");
        outbound.send(worker_message::Message::Register(register).into()).await.map_err(closed)?;
        let mut client = TrainingServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let messages = ReceiverStream::new(messages).flat_map(|message| futures::stream::iter(chunked(message)));
        let mut inbound = Inbound::new(client.train(messages).await?.into_inner());
        let interval = self.registered(&mut inbound, dial).await?;
        self.order(Order::Connected(outbound.clone())).await?;
        let mut heartbeat = beats(interval);
        let mut leave = None;
        loop {
            tokio::select! {
                received = inbound.next() => {
                    let order = received?.ok_or_else(|| WorkerError::lost("it closed the stream"))?;
                    match &order {
                        Order::Assign(..) => {
                            heartbeat = beats(inbound.lease.map_or(interval, |lease| interval.min(lease / 3)));
                        }
                        Order::Command(Received { command: Message::Release(release), .. }) if leave.is_some() => {
                            info!(job = release.job, reason = release.reason, "the worker is released and stops");
                            return Ok(());
                        }
                        _ => {}
                    }
                    self.order(order).await?;
                }
                _ = heartbeat.tick() => {
                    // A full channel means that other messages are being sent, which renew the lease like a heartbeat.
                    let _ = outbound.try_send(worker_message::Message::Heartbeat(self.status.heartbeat()).into());
                }
                () = shutdown.cancelled(), if leave.is_none() => {
                    let Some((job, term)) = self.status.job() else { return Ok(()) };
                    let seconds = self.config.grace.as_secs();
                    info!(%job, seconds, "the worker was asked to stop and finishes its step");
                    let leaving = v1::Leaving { job: job.to_string(), term: term.0 };
                    outbound.send(worker_message::Message::Leaving(leaving).into()).await.map_err(closed)?;
                    leave = Some(Instant::now() + self.config.grace);
                }
                () = until(leave) => {
                    warn!("the worker did not finish its step in time and stops; the coordinator retries the turn");
                    return Ok(());
                }
            }
        }
    }

    /// Reads the coordinator's first message: the interval between heartbeats.
    async fn registered(&self, inbound: &mut Inbound, dial: &mut Connection) -> Result<Duration, WorkerError> {
        match inbound.next_message().await? {
            Some((Message::Registered(registered), _)) => {
                info!(term = registered.term, device = self.device, "the worker is registered");
                dial.registered();
                Ok(Duration::from_millis(registered.heartbeat_interval_ms.clamp(100, 60_000)))
            }
            Some((other, _)) => {
                let reason = format!("its first message was not `registered` but {}", name_of(&other));
                Err(WorkerError::Refused { reason })
            }
            None => Err(WorkerError::lost("it sent nothing")),
        }
    }

    async fn order(&self, order: Order) -> Result<(), WorkerError> {
        let sent = self.orders.send(order).await;
        sent.map_err(|_| WorkerError::Engine { reason: "its thread ended".to_owned() })
    }
}

fn beats(interval: Duration) -> Interval {
    let mut beats = tokio::time::interval(interval.max(SHORTEST_BEAT));
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The coordinator's messages, each with all of its tensors.
struct Inbound {
    stream: tonic::Streaming<v1::CoordinatorMessage>,
    assembler: Assembler<v1::CoordinatorMessage>,
    /// The total size limit of a message's tensors for the assigned job, in bytes.
    limit: usize,
    /// The lease: how long this worker may be silent before the coordinator releases its slot.
    lease: Option<Duration>,
}

impl Inbound {
    fn new(stream: tonic::Streaming<v1::CoordinatorMessage>) -> Self {
        Self { stream, assembler: Assembler::default(), limit: 0, lease: None }
    }

    /// The next order for the engine. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Option<Order>, WorkerError> {
        let Some((command, followed)) = self.next_message().await? else { return Ok(None) };
        let Message::Assign(assign) = command else { return Ok(Some(Received { command, followed }.into())) };
        let under = Under { job: assign.job.clone(), term: assign.term };
        // The engine reports the error, if there is one.
        let assigned = Assigned::decode(assign).map(Box::new);
        let spec = assigned.as_ref().ok().map(|assigned| &assigned.spec);
        self.limit = spec.map_or(0, |spec| engine::head_shape(spec).bytes());
        self.lease = spec.and_then(|spec| Duration::try_from_secs_f64(spec.schedule.lease_ttl).ok());
        Ok(Some(Order::Assign(under, assigned)))
    }

    async fn next_message(&mut self) -> Result<Option<(Message, Followed)>, WorkerError> {
        let broken = |error: antiphon_proto::WireError| WorkerError::lost(error);
        loop {
            let Some(envelope) = self.stream.message().await? else { return Ok(None) };
            match self.assembler.take(envelope, self.limit).map_err(broken)? {
                Assembled::Incomplete => {}
                Assembled::Rejected(_, error) => return Err(broken(error)),
                Assembled::Whole(envelope, followed) => {
                    return Ok(Some((stream::open_coordinator(envelope).map_err(broken)?, followed)));
                }
            }
        }
    }
}

fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Registered(_) => "registered",
        Message::Assign(_) => "assign",
        Message::Grant(_) => "grant",
        Message::Evaluate(_) => "evaluate",
        Message::NextLogits(_) => "next_logits",
        Message::SaveFiles(_) => "save_files",
        Message::Rejected(_) => "rejected",
        Message::Release(_) => "release",
        Message::Chunk(_) => "chunk",
    }
}
