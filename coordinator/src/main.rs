//! `antiphon-coordinator`: parse, listen, serve, drain.

use std::process::ExitCode;

use antiphon_coordinator::config::CoordinatorArgs;
use antiphon_coordinator::edge::server;
use antiphon_process::{Exit, failed};
use antiphon_store::storage::StoreOptions;
use clap::Parser;

/// Owns the shared head of every job and grants turns to workers.
#[derive(Debug, Parser)]
#[command(name = "antiphon-coordinator", version)]
struct Arguments {
    #[command(flatten)]
    coordinator: CoordinatorArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { coordinator } = Arguments::parse();
    let stores = match StoreOptions::from_environment() {
        Ok(stores) => stores,
        Err(error) => return failed(&error, Exit::Usage),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,slatedb=warn".into());
    // If no process reads the log, the coordinator continues without it.
    tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr).init();
    let shutdown = match antiphon_process::cancelled_by_signal() {
        Ok(shutdown) => shutdown,
        Err(error) => return failed(&error, Exit::Failed),
    };
    match server::listen(&coordinator, stores, shutdown).await {
        Ok(()) => Exit::Success.into(),
        Err(error) => failed(&error, error.exit()),
    }
}
