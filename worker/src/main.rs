//! `antiphon-worker`: parse, connect, serve until asked to stop.

use std::process::ExitCode;

use antiphon_model::allocator::Allocator;
use antiphon_model::custom::Encoders;
use antiphon_process::{Exit, failed};
use antiphon_store::storage::StoreOptions;
use antiphon_worker::WorkerArgs;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

/// Trains the encoder of one modality for a coordinator's jobs.
#[derive(Debug, Parser)]
#[command(name = "antiphon-worker", version)]
struct Arguments {
    #[command(flatten)]
    worker: WorkerArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { worker } = Arguments::parse();
    let stores = match StoreOptions::from_environment() {
        Ok(stores) => stores,
        Err(error) => return failed(&error, Exit::Usage),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // A worker keeps running when its log is closed.
    tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr).init();
    let shutdown = match antiphon_process::cancelled_by_signal() {
        Ok(shutdown) => shutdown,
        Err(error) => return failed(&error, Exit::Failed),
    };
    let config = match worker.complete(stores, Encoders::default()) {
        Ok(config) => config,
        Err(error) => return failed(&error, Exit::Usage),
    };
    match antiphon_worker::run(config, shutdown).await {
        Ok(()) => Exit::Success.into(),
        Err(error) => failed(&error, error.exit()),
    }
}
