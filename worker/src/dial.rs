//! Connects to the coordinator, and reconnects. `antiphon_transport::Reconnect` is the loop; this file decides which
//! errors it retries, and for how long.

use antiphon_core::ids::WorkerId;
use antiphon_model::device::DeviceError;
use antiphon_process::Exit;
use antiphon_transport::reconnect::{Ended, Notice, RequestError};
use antiphon_transport::{AddressError, ConnectError, Dial, KeepAlive, Reconnect, ReconnectPolicy, status};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::{info, warn};

use crate::config::Config;

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator's address is invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No coordinator answers.
    #[error("no coordinator at {url} after {seconds} s: {reason}; is it running (`antiphon coordinator`)?")]
    Unreachable {
        /// The URL of the coordinator.
        url: String,
        /// How long the worker retried, in seconds.
        seconds: u64,
        /// The last error.
        reason: String,
    },
    /// The connection is lost, and reconnecting is disabled.
    #[error("the coordinator ended the connection: {reason}")]
    Disconnected {
        /// The coordinator's or the operating system's message.
        reason: String,
    },
    /// Another worker is registered under the name of this one.
    #[error("{reason}")]
    NameTaken {
        /// The coordinator's message, which says what to do.
        reason: String,
    },
    /// The coordinator rejected this worker.
    #[error("the coordinator rejected this worker: {reason}")]
    Refused {
        /// The coordinator's message.
        reason: String,
    },
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The engine's thread has ended.
    #[error("the worker's engine stopped: {reason}")]
    Engine {
        /// Why, as a message.
        reason: String,
    },
}

impl WorkerError {
    /// The exit code of the worker's process.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            // The same command would fail again, as long as the other worker runs.
            Self::Address(_) | Self::Device(_) | Self::NameTaken { .. } => Exit::Usage,
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
        match status.code() {
            Code::AlreadyExists => Self::NameTaken { reason },
            _ if status::is_rejected(&status) => Self::Refused { reason },
            _ => Self::Disconnected { reason },
        }
    }
}

impl From<ConnectError> for WorkerError {
    fn from(error: ConnectError) -> Self {
        Self::Unreachable { seconds: 0, reason: error.reason(), url: error.url }
    }
}

impl RequestError for WorkerError {
    fn outage(&self) -> Option<String> {
        match self {
            Self::Unreachable { reason, .. } | Self::Disconnected { reason } => Some(reason.clone()),
            // The coordinator may not have noticed yet that the last connection of this worker is lost.
            Self::NameTaken { reason } => Some(reason.clone()),
            Self::Address(_) | Self::Refused { .. } | Self::Device(_) | Self::Engine { .. } => None,
        }
    }
}

/// A worker's connection to its coordinator, with its reconnect policies.
pub(crate) struct Connection {
    dial: Dial,
    /// The policies before and after the first registration.
    connect: ReconnectPolicy,
    reconnect: ReconnectPolicy,
    worker: WorkerId,
    was_registered: bool,
    /// The outage, from the first attempt until the worker is registered.
    outage: Option<Reconnect>,
}

impl Connection {
    pub(crate) fn new(config: &Config) -> Result<Self, WorkerError> {
        Ok(Self {
            dial: Dial::new(&config.coordinator, KeepAlive::Streams)?,
            connect: ReconnectPolicy::new(config.connect_timeout),
            reconnect: ReconnectPolicy::new(config.reconnect_timeout),
            worker: config.worker.clone(),
            was_registered: false,
            outage: None,
        })
    }

    fn policy(&self) -> ReconnectPolicy {
        if self.was_registered { self.reconnect } else { self.connect }
    }

    fn outage(&mut self) -> &mut Reconnect {
        let policy = self.policy();
        self.outage.get_or_insert_with(|| Reconnect::new(policy, self.worker.as_str()).without_first_notice())
    }

    /// Retries until there is a connection, or the timeout ends.
    pub(crate) async fn connect(&mut self) -> Result<Channel, WorkerError> {
        let dial = self.dial.clone();
        let connect = |timeout| {
            let dial = &dial;
            async move { Ok(dial.connect(timeout).await?) }
        };
        let connected = self.outage().until(connect, report).await;
        connected.map_err(|ended| self.last_error(ended))
    }

    /// Records the registration. The next lost connection starts a new outage.
    pub(crate) fn registered(&mut self) {
        let outage = self.outage.take();
        if self.was_registered
            && let Some(seconds) = outage.and_then(|outage| outage.seconds())
        {
            info!(seconds, "the coordinator is back");
        }
        self.was_registered = true;
    }

    /// A connection is lost, or was refused: whether [`Self::connect`] is to make another one.
    ///
    /// # Errors
    /// It is not: the error is final, or time is up.
    pub(crate) fn lost(&mut self, error: WorkerError) -> Result<(), WorkerError> {
        if matches!(error, WorkerError::NameTaken { .. }) && !self.was_registered {
            return Err(error);
        }
        let policy = self.policy();
        if let Some(reason) = error.outage()
            && !self.outage.as_ref().is_some_and(Reconnect::has_failed)
            && !policy.is_once()
        {
            warn!(reason, seconds = policy.timeout().as_secs(), "the connection is lost; the worker reconnects");
            self.outage = None;
        }
        let failed = self.outage().failed(error, report);
        failed.map_err(|ended| self.last_error(ended))
    }

    /// The final error, which says how long the worker retried.
    fn last_error(&self, Ended { error, seconds }: Ended<WorkerError>) -> WorkerError {
        match (error, seconds) {
            (WorkerError::Unreachable { url, reason, .. }, Some(seconds)) => {
                WorkerError::Unreachable { url, seconds, reason }
            }
            (WorkerError::Disconnected { reason }, Some(seconds)) if !self.policy().is_once() => {
                WorkerError::Unreachable { url: self.dial.url().to_owned(), seconds, reason }
            }
            // The name belonged to this worker before, so its supervisor may start it again.
            (WorkerError::NameTaken { reason }, Some(seconds)) if self.was_registered => {
                WorkerError::Unreachable { url: self.dial.url().to_owned(), seconds, reason }
            }
            (error, _) => error,
        }
    }
}

fn report(Notice { seconds, error }: Notice<'_>) -> Result<(), WorkerError> {
    warn!(reason = error, seconds, "the worker reaches no coordinator and retries");
    Ok(())
}
