//! Reaching the coordinator, again and again if need be.

use std::error::Error as _;
use std::time::Duration;

use antiphon_core::backoff::Backoff;
use antiphon_core::ids::WorkerId;
use antiphon_model::device::DeviceError;
use antiphon_process::{Exit, innermost};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{debug, info, warn};

use crate::config::Config;

/// The pauses between tries.
const PAUSES: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(10) };
/// How long one try may take.
const TRY: Duration = Duration::from_secs(5);
/// How often it is said that the coordinator is still away.
const REPORT: Duration = Duration::from_secs(10);
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
    /// The connection is lost, and was not to be made again.
    #[error("the coordinator ended the connection: {reason}")]
    Disconnected {
        /// In its words.
        reason: String,
    },
    /// The coordinator does not take this worker.
    #[error("the coordinator does not take this worker: {reason}")]
    Refused {
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

impl WorkerError {
    /// What its process ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Address { .. } | Self::Device(_) => Exit::Usage,
            Self::Unreachable { .. } | Self::Disconnected { .. } | Self::Refused { .. } => Exit::Unreachable,
            Self::Engine { .. } => Exit::Failed,
        }
    }

    /// A connection that is lost.
    pub(crate) fn lost(reason: impl ToString) -> Self {
        Self::Disconnected { reason: reason.to_string() }
    }
}

impl From<Status> for WorkerError {
    fn from(status: Status) -> Self {
        let reason = match (status.source(), status.message()) {
            (Some(error), _) => innermost(error),
            (None, "") => status.code().to_string(),
            (None, message) => message.to_owned(),
        };
        match status.code() {
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented => Self::Refused { reason },
            _ => Self::Disconnected { reason },
        }
    }
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

/// A worker's tries to reach its coordinator. Pauses grow, and no two workers have the same, so that a coordinator that comes
/// back is not overrun.
pub(crate) struct Dial {
    url: String,
    /// How long to try before the first connection, and after one is lost.
    first: Duration,
    again: Duration,
    worker: WorkerId,
    since: Instant,
    reported: Instant,
    was_connected: bool,
    tries: u32,
}

impl Dial {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            url: config.coordinator.clone(),
            first: config.connect_timeout,
            again: config.reconnect_for,
            worker: config.worker.clone(),
            since: Instant::now(),
            reported: Instant::now(),
            was_connected: false,
            tries: 0,
        }
    }

    fn patience(&self) -> Duration {
        if self.was_connected { self.again } else { self.first }
    }

    /// Tries until there is a connection, or patience ends.
    pub(crate) async fn connect(&mut self) -> Result<Channel, WorkerError> {
        let endpoint = endpoint(&self.url)?.connect_timeout(self.patience().clamp(PAUSES.first, TRY));
        loop {
            match endpoint.connect().await {
                Ok(channel) => return Ok(channel),
                Err(error) => {
                    let reason =
                        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                    self.pause(reason).await?;
                }
            }
        }
    }

    /// A worker has registered: the next loss begins a new count.
    pub(crate) fn succeeded(&mut self) {
        if self.was_connected {
            info!(seconds = self.since.elapsed().as_secs(), "the coordinator is back");
        }
        self.was_connected = true;
        self.tries = 0;
    }

    /// A connection is lost, or was refused: decides whether to try again, and when.
    pub(crate) async fn lost(&mut self, error: WorkerError) -> Result<(), WorkerError> {
        let reason = match error {
            WorkerError::Disconnected { reason } if self.was_connected => reason,
            // The coordinator may not have noticed yet that the last connection is lost.
            WorkerError::Refused { reason } if self.was_connected && reason.contains("registered already") => reason,
            WorkerError::Disconnected { reason } if !self.patience().is_zero() => reason,
            error => return Err(error),
        };
        if self.tries == 0 {
            (self.since, self.reported) = (Instant::now(), Instant::now());
            if self.again.is_zero() {
                return Err(WorkerError::Disconnected { reason });
            }
            warn!(reason, seconds = self.again.as_secs(), "the connection is lost; trying again");
        }
        self.pause(reason).await
    }

    async fn pause(&mut self, reason: String) -> Result<(), WorkerError> {
        let pause = PAUSES.pause(self.tries, 0, &["dial".into(), self.worker.as_str().into()]);
        let tried = self.since.elapsed();
        if tried + pause >= self.patience() {
            return Err(WorkerError::Unreachable { url: self.url.clone(), seconds: tried.as_secs(), reason });
        }
        self.tries = self.tries.saturating_add(1);
        if self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            warn!(reason, seconds = tried.as_secs(), "still no coordinator; trying again");
        } else {
            debug!(reason, "coordinator not there yet");
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
