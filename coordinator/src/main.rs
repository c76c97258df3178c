//! `antiphon-coordinator`: parse, listen, serve, drain.

use antiphon_coordinator::config::CoordinatorArgs;
use antiphon_coordinator::server;
use anyhow::Context as _;
use clap::Parser;

/// Owns the shared head of every job and hands out turns to workers.
#[derive(Debug, Parser)]
#[command(name = "antiphon-coordinator", version)]
struct Arguments {
    #[command(flatten)]
    coordinator: CoordinatorArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { coordinator } = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,slatedb=warn".into());
    // Nobody may be left to read the log: work goes on without.
    tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr).init();
    let listener = tokio::net::TcpListener::bind(coordinator.listen)
        .await
        .with_context(|| format!("cannot listen on {}", coordinator.listen))?;
    let shutdown = antiphon_process::cancelled_by_signal()?;
    Ok(server::serve(coordinator.config(), listener, shutdown).await?)
}
