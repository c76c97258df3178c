//! The worker's end of the training stream: registers, and passes messages between the socket and the engine. It never
//! computes.

use std::sync::Arc;
use std::time::Duration;

use antiphon_core::spec::JobSpec;
use antiphon_proto::chunks::{Assembled, Assembler, pieces};
use antiphon_proto::v1::{self, coordinator_message, training_service_client::TrainingServiceClient, worker_message};
use antiphon_proto::{MESSAGE_LIMIT, stream};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::device;
use crate::dial::{Connection, WorkerError};
use crate::engine::{self, Engine, Order, Received, Status};

/// Messages that may be on their way in either direction; the protocol needs two (an answer and a heartbeat).
const IN_FLIGHT: usize = 8;

/// However short a lease is, no more signs of life are given than this.
const SHORTEST_BEAT: Duration = Duration::from_millis(20);

/// Serves jobs until `shutdown`. A connection that is lost is made again, for as long as the configuration says.
///
/// # Errors
/// If the device cannot be used, or the coordinator cannot be reached in time or does not take this worker.
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
            match session.serve(channel, &mut dial, &shutdown).await {
                Ok(()) => return Ok(()),
                Err(error) if shutdown.is_cancelled() => {
                    debug!(%error, "the connection is gone, and this worker goes too");
                    return Ok(());
                }
                Err(error) => tokio::select! {
                    again = dial.lost(error) => again?,
                    () = shutdown.cancelled() => return Ok(()),
                },
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
            warn!("the coordinator does not answer; going without it");
            Ok(())
        }
    }
}

/// A while after the time that a worker has to finish its step: what it waits for then will not come.
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
    /// Registers, and passes messages on until the connection is lost, or this worker has stopped as it was asked to.
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
        let messages = ReceiverStream::new(messages).flat_map(|message| futures::stream::iter(pieces(message)));
        let mut inbound = Inbound::new(client.train(messages).await?.into_inner());
        let interval = self.registered(&mut inbound, dial).await?;
        self.order(Order::Connected(outbound.clone())).await?;
        let mut heartbeat = beats(interval);
        let mut leave = None;
        loop {
            tokio::select! {
                received = inbound.next() => {
                    let received = received?.ok_or_else(|| WorkerError::lost("it closed the stream"))?;
                    match &received.command {
                        coordinator_message::Message::Assign(_) => {
                            heartbeat = beats(inbound.lease.map_or(interval, |lease| interval.min(lease / 3)));
                        }
                        coordinator_message::Message::Release(release) if leave.is_some() => {
                            info!(job = release.job, reason = release.reason, "released; this worker stops");
                            return Ok(());
                        }
                        _ => {}
                    }
                    self.order(Order::Command(received)).await?;
                }
                _ = heartbeat.tick() => {
                    // A full channel means that messages are flowing, which says as much as a heartbeat.
                    let _ = outbound.try_send(worker_message::Message::Heartbeat(self.status.heartbeat()).into());
                }
                () = shutdown.cancelled(), if leave.is_none() => {
                    let Some((job, term)) = self.status.job() else { return Ok(()) };
                    info!(%job, seconds = self.config.grace.as_secs(), "asked to stop: finishing the step at hand");
                    let leaving = v1::Leaving { job: job.to_string(), term: term.0 };
                    outbound.send(worker_message::Message::Leaving(leaving).into()).await.map_err(closed)?;
                    leave = Some(Instant::now() + self.config.grace);
                }
                () = until(leave) => {
                    warn!("the step at hand is not finished in time; its turn is handed back");
                    return Ok(());
                }
            }
        }
    }

    /// The coordinator's first message; how often it wants a sign of life.
    async fn registered(&self, inbound: &mut Inbound, dial: &mut Connection) -> Result<Duration, WorkerError> {
        match inbound.next().await?.map(|received| received.command) {
            Some(coordinator_message::Message::Registered(registered)) => {
                let Config { worker, modality, .. } = self.config;
                info!(%worker, %modality, term = registered.term, "registered");
                dial.succeeded();
                Ok(Duration::from_millis(registered.heartbeat_interval_ms.clamp(100, 60_000)))
            }
            Some(other) => {
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

/// What the coordinator says, each message with all of its tensors.
struct Inbound {
    stream: tonic::Streaming<v1::CoordinatorMessage>,
    assembler: Assembler<v1::CoordinatorMessage>,
    /// Bytes of the largest tensor of the job at hand.
    limit: usize,
    /// How long it may be silent before its place is offered to others.
    lease: Option<Duration>,
}

impl Inbound {
    fn new(stream: tonic::Streaming<v1::CoordinatorMessage>) -> Self {
        Self { stream, assembler: Assembler::default(), limit: 0, lease: None }
    }

    /// The next message. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Option<Received>, WorkerError> {
        let broken = |error: antiphon_proto::WireError| WorkerError::lost(error);
        loop {
            let Some(envelope) = self.stream.message().await? else { return Ok(None) };
            match self.assembler.take(envelope, self.limit).map_err(broken)? {
                Assembled::Part => {}
                Assembled::Refused(_, error) => return Err(broken(error)),
                Assembled::Whole(envelope, followed) => {
                    let command = stream::open_coordinator(envelope).map_err(broken)?;
                    if let coordinator_message::Message::Assign(assign) = &command {
                        // The engine says what is wrong with a specification.
                        let spec = JobSpec::from_json(&assign.specification).ok();
                        self.limit = spec.as_ref().map_or(0, |spec| engine::head_shape(spec).bytes());
                        self.lease = spec.and_then(|spec| Duration::try_from_secs_f64(spec.schedule.lease_ttl).ok());
                    }
                    return Ok(Some(Received { command, followed }));
                }
            }
        }
    }
}

fn name_of(message: &coordinator_message::Message) -> &'static str {
    use coordinator_message::Message;
    match message {
        Message::Registered(_) => "registered",
        Message::Assign(_) => "assign",
        Message::Grant(_) => "grant",
        Message::Evaluate(_) => "evaluate",
        Message::NextLogits(_) => "next_logits",
        Message::SavePart(_) => "save_part",
        Message::Rejected(_) => "rejected",
        Message::Release(_) => "release",
        Message::Chunk(_) => "chunk",
    }
}
