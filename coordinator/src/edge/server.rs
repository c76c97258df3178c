//! Listens and serves until it is told to stop; then stops in order: no new connections, jobs to a turn boundary, workers' streams,
//! connections.

use std::net::SocketAddr;
use std::time::Duration;

use antiphon_process::Exit;
use antiphon_proto::v1::job_service_server::JobServiceServer;
use antiphon_proto::v1::training_service_server::TrainingServiceServer;
use antiphon_store::storage::StoreOptions;
use futures::{Stream, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;

use super::jobs::Jobs;
use super::training::Training;
use crate::config::{Config, CoordinatorArgs};
use crate::journal::JournalError;
use crate::registry::Coordinator;

/// One frame for most tensors: with the default of 16 KiB a head of 300 kB takes twenty.
const FRAME: u32 = 1 << 20;
/// Bytes in flight per stream before the reader has to agree to more: several tensors.
const STREAM_WINDOW: u32 = 8 << 20;
/// As above, for all streams of a connection.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// A job file is text.
const JOB_MESSAGE_LIMIT: usize = 4 << 20;
/// For how long a client may stand still and keep its connection. Workers' silence is judged by leases, which may be long.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(3600);
/// How long connections have to drain when everything has been said.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a coordinator does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        error: std::io::Error,
    },
    /// Other machines could reach it, and nobody said that they may.
    #[error(
        "{address} can be reached from other machines, and nothing is encrypted or authenticated yet: \
         listen on 127.0.0.1, or say --insecure-allow-remote"
    )]
    Remote {
        /// The address.
        address: SocketAddr,
    },
    /// The coordinator's state cannot be opened, or another coordinator has taken it over.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The listener is not one.
    #[error("the listener has no address: {0}")]
    Listener(#[from] std::io::Error),
    /// The descriptors for reflection are damaged.
    #[error("reflection cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("serving failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl ServeError {
    /// What its process ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Listen { .. } | Self::Remote { .. } | Self::Journal(JournalError::State(_)) => Exit::Usage,
            Self::Journal(_) | Self::Listener(_) | Self::Reflection(_) | Self::Transport(_) => Exit::Failed,
        }
    }
}

/// Listens and serves as its arguments say; stores are opened as `stores` says.
///
/// # Errors
/// The address cannot be listened on; and as [`serve`].
pub async fn listen(
    args: &CoordinatorArgs,
    stores: StoreOptions,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = args.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Listen { address, error })?;
    serve(args.config(stores), listener, shutdown).await
}

/// Serves a coordinator with `config` on `listener` until `shutdown`, or until another one takes over its state.
///
/// # Errors
/// The listener is open to other machines without leave, its state cannot be opened or is taken over, or serving fails.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    check_address(&config, &listener)?;
    tracing::info!(state = config.state, "opening the journal");
    let coordinator = tokio::select! {
        coordinator = Coordinator::open(config) => coordinator?,
        // A store that does not answer keeps nobody who does not want to wait for it.
        () = shutdown.cancelled() => return Ok(()),
    };
    serve_coordinator(coordinator, listener, shutdown).await
}

/// As [`serve`], for a coordinator that the caller goes on to use in its own process.
///
/// # Errors
/// As [`serve`].
pub async fn serve_coordinator(
    coordinator: Coordinator,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = check_address(coordinator.config(), &listener)?;
    antiphon_store::storage::install_crypto_provider();
    tracing::info!(%address, "coordinator listens");
    let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
    let (health, router) = router(&coordinator, &closing).await?;
    let serving = router.serve_with_incoming_shutdown(accept(listener), ending.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        result = &mut serving => {
            coordinator.stop_all().await;
            return Ok(result?);
        }
        _error = coordinator.fallen() => {}
        () = shutdown.cancelled() => {}
    }
    ending.cancel();
    let stop = async {
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        health.set_not_serving::<JobServiceServer<Jobs>>().await;
        health.set_not_serving::<TrainingServiceServer<Training>>().await;
        coordinator.stop_all().await;
        closing.cancel();
    };
    let drain = async {
        tokio::select! {
            result = &mut serving => Ok(result?),
            () = async { closing.cancelled().await; tokio::time::sleep(DRAIN).await } => {
                tracing::warn!("connections did not drain in time");
                Ok(())
            }
        }
    };
    // To the end, both of them: the journal is being closed.
    let (drained, ()) = tokio::join!(drain, stop);
    match coordinator.has_fallen() {
        Some(error) => Err(error.into()),
        None => drained,
    }
}

/// The listener's address, if it may be served on.
fn check_address(config: &Config, listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && !config.insecure_allow_remote {
        return Err(ServeError::Remote { address });
    }
    Ok(address)
}

async fn router(
    coordinator: &Coordinator,
    closing: &CancellationToken,
) -> Result<(tonic_health::server::HealthReporter, Router), ServeError> {
    let limit = coordinator.config().message_limit;
    let jobs = JobServiceServer::new(Jobs { coordinator: coordinator.clone() })
        .max_decoding_message_size(JOB_MESSAGE_LIMIT.min(limit))
        .max_encoding_message_size(limit);
    let training = TrainingServiceServer::new(Training { coordinator: coordinator.clone(), closing: closing.clone() })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<JobServiceServer<Jobs>>().await;
    reporter.set_serving::<TrainingServiceServer<Training>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(antiphon_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let router = transport().add_service(health).add_service(reflection).add_service(jobs).add_service(training);
    Ok((reporter, router))
}

/// A gRPC server set up for tensors.
#[must_use]
pub fn transport() -> Server {
    Server::builder()
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(LONGEST_STANDSTILL))
}

/// The connections that come in at a listener, set up so that messages go out at once.
pub fn accept(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> {
    TcpListenerStream::new(listener).map(|stream| stream.inspect(send_at_once))
}

/// A listener that tonic did not open leaves Nagle's algorithm on, which holds a turn back by tens of milliseconds.
fn send_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::warn!(%error, "a connection keeps Nagle's algorithm; turns will be slow");
    }
}
