//! Reaching the coordinator, again and again if need be.

use antiphon_core::ids::WorkerId;
use antiphon_model::device::DeviceError;

use antiphon_process::Exit;
use antiphon_transport::{AddressError, Dial, KeepAlive, Outage, ReconnectPolicy, status};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use crate::config::Config;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator's address is not one.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No coordinator answers.
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
            Self::Address(_) | Self::Device(_) => Exit::Usage,
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
        let reason = status::message(&status);
        if status::is_rejected(&status) { Self::Refused { reason } } else { Self::Disconnected { reason } }
    }
}

/// A worker's tries to reach its coordinator.
pub(crate) struct Connection {
    dial: Dial,
    /// Before the first connection, and after one is lost.
    connect: ReconnectPolicy,
    reconnect: ReconnectPolicy,
    worker: WorkerId,
    was_connected: bool,
    outage: Outage,
}

impl Connection {
    pub(crate) fn new(config: &Config) -> Result<Self, WorkerError> {
        let connect = ReconnectPolicy::new(config.connect_timeout);
        Ok(Self {
            dial: Dial::new(&config.coordinator, KeepAlive::Streams)?,
            connect,
            reconnect: ReconnectPolicy::new(config.reconnect_timeout),
            worker: config.worker.clone(),
            was_connected: false,
            outage: begun(connect),
        })
    }

    fn policy(&self) -> ReconnectPolicy {
        if self.was_connected { self.reconnect } else { self.connect }
    }

    /// Tries until there is a connection, or time is up.
    pub(crate) async fn connect(&mut self) -> Result<Channel, WorkerError> {
        loop {
            match self.dial.connect(self.outage.try_timeout(Instant::now())).await {
                Ok(channel) => return Ok(channel),
                Err(reason) => self.pause(reason).await?,
            }
        }
    }

    /// A worker has registered: the next loss begins a new count.
    pub(crate) fn succeeded(&mut self) {
        if self.was_connected {
            info!(seconds = self.outage.seconds(Instant::now()), "the coordinator is back");
        }
        self.was_connected = true;
        self.outage = begun(self.reconnect);
    }

    /// A connection is lost, or was refused: decides whether to try again, and when.
    pub(crate) async fn lost(&mut self, error: WorkerError) -> Result<(), WorkerError> {
        let reason = match error {
            WorkerError::Disconnected { reason } if self.was_connected => reason,
            // The coordinator may not have noticed yet that the last connection is lost.
            WorkerError::Refused { reason } if self.was_connected && reason.contains("registered already") => reason,
            WorkerError::Disconnected { reason } if !self.policy().is_once() => reason,
            error => return Err(error),
        };
        if !self.outage.has_failed() {
            if self.reconnect.is_once() {
                return Err(WorkerError::Disconnected { reason });
            }
            self.outage = begun(self.policy());
            warn!(reason, seconds = self.policy().timeout().as_secs(), "the connection is lost; trying again");
        }
        self.pause(reason).await
    }

    async fn pause(&mut self, reason: String) -> Result<(), WorkerError> {
        let now = Instant::now();
        let seconds = self.outage.seconds(now);
        if !self.outage.failed(now, reason.clone(), self.worker.as_str()) {
            return Err(WorkerError::Unreachable { url: self.dial.url().to_owned(), seconds, reason });
        }
        if self.outage.notice_at() <= now {
            self.outage.noticed(now);
            warn!(reason, seconds, "still no coordinator; trying again");
        } else {
            debug!(reason, "coordinator not there yet");
        }
        tokio::time::sleep_until(self.outage.next_try()).await;
        Ok(())
    }
}

/// An outage that begins now, of which no notice is given at once.
fn begun(policy: ReconnectPolicy) -> Outage {
    let now = Instant::now();
    let mut outage = Outage::new(now, policy);
    outage.noticed(now);
    outage
}
