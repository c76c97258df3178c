//! Listens and serves until it is asked to stop. Then it stops in order: no new connections, jobs to a turn boundary,
//! workers' streams, connections.

use std::time::Duration;

use antiphon_process::Exit;
use antiphon_proto::v1::job_service_server::JobServiceServer;
use antiphon_proto::v1::training_service_server::TrainingServiceServer;
use antiphon_store::storage::StoreOptions;
use antiphon_transport::{ListenError, incoming};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

use super::jobs::Jobs;
use super::training::Training;
use crate::config::{Config, CoordinatorArgs};
use crate::journal::JournalError;
use crate::registry::Coordinator;

/// The largest message of the job service, in bytes. A job file is text.
const JOB_MESSAGE_LIMIT: usize = 4 << 20;
/// How long connections have to drain after the last message.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a coordinator cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its address cannot be bound, or is not permitted.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The coordinator's state cannot be opened, or another coordinator has taken it over.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The descriptors for reflection are damaged.
    #[error("gRPC reflection cannot be served: {0}; this is a bug in the coordinator")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the gRPC server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl ServeError {
    /// The exit code of its process.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Listen(ListenError::NoAddress(_)) => Exit::Failed,
            Self::Listen(_) | Self::Journal(JournalError::State(_)) => Exit::Usage,
            Self::Journal(_) | Self::Reflection(_) | Self::Transport(_) => Exit::Failed,
        }
    }
}

/// Listens and serves according to its arguments and store options.
///
/// # Errors
/// If the address cannot be bound, and as [`serve`].
pub async fn listen(
    args: &CoordinatorArgs,
    stores: StoreOptions,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let listener = antiphon_transport::listen(&args.network).await?;
    serve(args.config(stores), listener, shutdown).await
}

/// Serves a coordinator with `config` on `listener` until `shutdown`, or until another one takes over its state.
///
/// # Errors
/// If other machines could reach the listener without permission, if the state cannot be opened or is taken over, or if
/// serving fails.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
    antiphon_transport::listen::check(&listener, config.insecure_allow_remote)?;
    tracing::info!(state = config.state, "the coordinator opens its journal");
    let coordinator = tokio::select! {
        coordinator = Coordinator::open(config) => coordinator?,
        // A store that does not answer must not delay a shutdown.
        () = shutdown.cancelled() => return Ok(()),
    };
    serve_coordinator(coordinator, listener, shutdown).await
}

/// As [`serve`], for a coordinator that the caller also uses directly.
///
/// # Errors
/// As [`serve`].
pub async fn serve_coordinator(
    coordinator: Coordinator,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = antiphon_transport::listen::check(&listener, coordinator.config().insecure_allow_remote)?;
    antiphon_store::storage::install_crypto_provider();
    tracing::info!(%address, "the coordinator listens");
    let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
    let (health, router) = router(&coordinator, &closing).await?;
    let serving = router.serve_with_incoming_shutdown(incoming(listener), ending.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        result = &mut serving => {
            coordinator.stop_all().await;
            return Ok(result?);
        }
        _error = coordinator.journal_closed() => {}
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
                tracing::warn!("some connections did not end in time; the coordinator closes them");
                Ok(())
            }
        }
    };
    // Both must finish, because the journal is being closed.
    let (drained, ()) = tokio::join!(drain, stop);
    match coordinator.journal_error() {
        Some(error) => Err(error.into()),
        None => drained,
    }
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
    let router = antiphon_transport::server()
        .add_service(health)
        .add_service(reflection)
        .add_service(jobs)
        .add_service(training);
    Ok((reporter, router))
}
