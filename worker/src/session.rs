//! The worker's end of the training stream: dials the coordinator, registers, and passes messages between the socket and
//! the engine. It never computes.

use std::sync::Arc;
use std::time::Duration;

use antiphon_core::spec::JobSpec;
use antiphon_proto::chunks::{Assembled, Assembler, pieces};
use antiphon_proto::v1::{self, coordinator_message, training_service_client::TrainingServiceClient, worker_message};
use antiphon_proto::{MESSAGE_LIMIT, stream};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info};

use crate::config::Config;
use crate::device::{self, Device, DeviceError};
use crate::engine::{self, Engine, Order, Status};

/// Messages that may be on their way in either direction; the protocol needs two (an answer and a heartbeat).
const IN_FLIGHT: usize = 8;
const RETRY: Duration = Duration::from_millis(250);
/// Flow-control windows and frames large enough that a head crosses without a pause.
const WINDOW: u32 = 8 << 20;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator's address is not one.
    #[error("coordinator `{url}` is not an address: {reason}; give it as http://host:port")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Nobody answers.
    #[error("no coordinator at {url} after {seconds} s: {reason}; is it running (`antiphon coordinator`)?")]
    Unreachable {
        /// Where.
        url: String,
        /// How long it was tried.
        seconds: u64,
        /// The last error.
        reason: String,
    },
    /// The coordinator did not take this worker, or cut it off.
    #[error("the coordinator ended the connection: {reason}")]
    Disconnected {
        /// In its words.
        reason: String,
    },
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The engine's thread is gone.
    #[error("the worker's engine stopped: {reason}")]
    Engine {
        /// In words.
        reason: String,
    },
}

/// Serves jobs until `shutdown`.
///
/// # Errors
/// If the device cannot be used, or the coordinator cannot be reached in time or ends the connection.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), WorkerError> {
    let choice = config.device;
    let device = tokio::task::spawn_blocking(move || choice.open());
    let device = device.await.map_err(|error| WorkerError::Engine { reason: error.to_string() })??;
    let channel = tokio::select! {
        channel = connect(&config) => channel?,
        () = shutdown.cancelled() => return Ok(()),
    };
    serve(&config, device, channel, &shutdown).await
}

/// How a worker dials the coordinator at `url`.
///
/// # Errors
/// It is not an address, or one that wants TLS, which there is not yet.
pub fn endpoint(url: &str) -> Result<Endpoint, WorkerError> {
    let address = |reason: String| WorkerError::Address { url: url.to_owned(), reason };
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| address(error.to_string()))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    if endpoint.uri().host().is_none() || endpoint.uri().scheme_str() != Some("http") {
        // There is no TLS yet, and what asks for it must not be sent in the clear.
        return Err(address("it has no host, or its scheme is not http".to_owned()));
    }
    Ok(endpoint)
}

async fn connect(config: &Config) -> Result<Channel, WorkerError> {
    let endpoint = endpoint(&config.coordinator)?.connect_timeout(config.connect_timeout.min(Duration::from_secs(5)));
    let deadline = Instant::now() + config.connect_timeout;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() + RETRY >= deadline => {
                let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                let seconds = config.connect_timeout.as_secs();
                return Err(WorkerError::Unreachable { url: config.coordinator.clone(), seconds, reason });
            }
            Err(error) => {
                debug!(%error, "coordinator not there yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn serve(
    config: &Config,
    device: Device,
    channel: Channel,
    shutdown: &CancellationToken,
) -> Result<(), WorkerError> {
    let (outbound, messages) = mpsc::channel(IN_FLIGHT);
    let register = v1::Register {
        worker: config.worker.to_string(),
        modality: config.modality.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: device::name(&device),
    };
    let send_failed = |_| WorkerError::Disconnected { reason: "the connection closed".to_owned() };
    outbound.send(worker_message::Message::Register(register).into()).await.map_err(send_failed)?;
    let mut client = TrainingServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let messages = ReceiverStream::new(messages).flat_map(|message| futures::stream::iter(pieces(message)));
    let mut inbound = Inbound::new(client.train(messages).await.map_err(disconnected)?.into_inner());

    let interval = match inbound.next().await?.map(|order| order.command) {
        Some(coordinator_message::Message::Registered(registered)) => {
            info!(worker = %config.worker, modality = %config.modality, term = registered.term, "registered");
            Duration::from_millis(registered.heartbeat_interval_ms.clamp(100, 60_000))
        }
        Some(other) => {
            let reason = format!("its first message was not `registered` but {}", name_of(&other));
            return Err(WorkerError::Disconnected { reason });
        }
        None => return Err(WorkerError::Disconnected { reason: "it sent nothing".to_owned() }),
    };
    let status = Arc::new(Status::default());
    let (commands, mut engine) =
        engine::spawn(Engine::new(config.clone(), device, outbound.clone(), Arc::clone(&status)));
    let mut heartbeat = tokio::time::interval(interval);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = inbound.next() => match order? {
                Some(order) => {
                    let sent = commands.send(order).await;
                    sent.map_err(|_| WorkerError::Engine { reason: "its thread ended".to_owned() })?;
                }
                None => return Err(WorkerError::Disconnected { reason: "it closed the stream".to_owned() }),
            },
            _ = heartbeat.tick() => {
                // A full channel means that messages are flowing, which says as much as a heartbeat.
                let _ = outbound.try_send(worker_message::Message::Heartbeat(status.heartbeat()).into());
            }
            ended = &mut engine => {
                let reason = ended.map_or_else(|_| "it panicked".to_owned(), |()| "its thread ended".to_owned());
                return Err(WorkerError::Engine { reason });
            }
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// What the coordinator says, each message with all of its tensors.
struct Inbound {
    stream: tonic::Streaming<v1::CoordinatorMessage>,
    assembler: Assembler<v1::CoordinatorMessage>,
    /// Bytes of the largest tensor of the job at hand.
    limit: usize,
}

impl Inbound {
    fn new(stream: tonic::Streaming<v1::CoordinatorMessage>) -> Self {
        Self { stream, assembler: Assembler::default(), limit: 0 }
    }

    /// The next message. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Option<Order>, WorkerError> {
        let broken = |error: antiphon_proto::WireError| WorkerError::Disconnected { reason: error.to_string() };
        loop {
            let Some(envelope) = self.stream.message().await.map_err(disconnected)? else { return Ok(None) };
            match self.assembler.take(envelope, self.limit).map_err(broken)? {
                Assembled::Part => {}
                Assembled::Refused(_, error) => return Err(broken(error)),
                Assembled::Whole(envelope, followed) => {
                    let command = stream::open_coordinator(envelope).map_err(broken)?;
                    if let coordinator_message::Message::Assign(assign) = &command {
                        // The engine says what is wrong with a specification.
                        let spec = JobSpec::from_json(&assign.specification);
                        self.limit = spec.map_or(0, |spec| engine::head_shape(&spec).bytes());
                    }
                    return Ok(Some(Order { command, followed }));
                }
            }
        }
    }
}

fn disconnected(status: tonic::Status) -> WorkerError {
    WorkerError::Disconnected { reason: format!("{}: {}", status.code(), status.message()) }
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
