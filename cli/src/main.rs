//! `antiphon`: parse, carry out, exit.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use antiphon::exit::{self, Exit, OrExit as _};
use antiphon::output::{self, Format};
use antiphon::{Cli, Command};
use antiphon_model::allocator::Allocator;
use antiphon_process::in_words;
use antiphon_store::storage::StoreOptions;
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator::new();

fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.format;
    let stores = match StoreOptions::from_environment().or_exit(Exit::Usage) {
        Ok(stores) => stores,
        Err(error) => return report(&error, format),
    };
    start_logging(&cli);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into(), format),
    };
    let code = match runtime.block_on(antiphon::execute(cli, stores)) {
        Ok(exit) => exit.into(),
        Err(error) => report(&error, format),
    };
    // Threads that still decode or compute have nothing left to do it for.
    runtime.shutdown_background();
    code
}

/// Says what went wrong, where its reader looks for it.
fn report(error: &anyhow::Error, format: Format) -> ExitCode {
    if let Some(broken) = error.downcast_ref::<std::io::Error>()
        && broken.kind() == std::io::ErrorKind::BrokenPipe
    {
        return Exit::Success.into();
    }
    let exit = exit::of(error);
    let told = match format {
        Format::Json => output::json(&serde_json::json!({"event": "error", "error": in_words(error.as_ref())})),
        Format::Text => output::complain(&format!("error: {}", in_words(error.as_ref()))),
    };
    // Nobody is listening; the exit code still speaks.
    drop(told);
    exit.into()
}

/// Servers log what they do; other commands only what is wrong, and what an encoder does without. `RUST_LOG`
/// overrides both.
fn start_logging(cli: &Cli) {
    let default = match cli.command {
        Command::Coordinator(_) | Command::Worker(_) => "info,slatedb=warn",
        _ => "error,antiphon_model::device=warn,antiphon_worker::trainer=warn,antiphon_model::weights=warn",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    // Nobody may be left to read the log: a server goes on without.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr);
    match cli.format {
        Format::Json => log.json().init(),
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
