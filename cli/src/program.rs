//! The program: parse, run, exit.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use antiphon_model::custom::Encoders;
use antiphon_process::full_message;
use antiphon_store::storage::StoreOptions;
use clap::Parser as _;

use crate::arguments::{Cli, Command};
use crate::commands;
use crate::context::Context;
use crate::exit::{self, Exit, OrExit as _};
use crate::output::{self, Format};

/// Parses the arguments of this process and runs the command. The exit code of the process.
#[must_use]
pub fn main() -> ExitCode {
    main_with(Encoders::new())
}

/// As [`main`], for a program that registers encoders besides the built-in ones.
#[must_use]
pub fn main_with(encoders: Encoders) -> ExitCode {
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
    let code = match runtime.block_on(execute(cli.command, &Context { format, stores, encoders })) {
        Ok(exit) => exit.into(),
        Err(error) => report(&error, format),
    };
    // The results of threads that still decode or compute are no longer needed.
    runtime.shutdown_background();
    code
}

/// Runs a command.
///
/// # Errors
/// Every failure; [`exit::of`] gives its exit code.
pub async fn execute(command: Command, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    match command {
        Command::Run(args) => commands::run::run(args, context).await,
        Command::Check(args) => {
            Ok(commands::check::run(&args, context, &mut std::io::stdout().lock(), &mut std::io::stderr().lock())?)
        }
        Command::Eval(args) => commands::eval::run(args, context).await,
        Command::Predict(args) => commands::predict::run(args, context).await,
        Command::Verify(args) => commands::verify::run(args, context).await,
        Command::Data(args) => commands::data::run(args, format).await,
        Command::Bench(args) => commands::bench::run(args, context).await,
        Command::Chaos(args) => commands::chaos::run(args, context).await,
        Command::Coordinator(args) => commands::serve::coordinator(&args, context).await,
        Command::Worker(args) => commands::serve::worker(args, context).await,
        Command::Submit(args) => commands::submit::run(args, context).await,
        Command::Jobs(args) => commands::jobs::run(args, format).await,
        Command::Follow(args) => commands::follow::run(args, format).await,
        Command::Stop(args) => commands::stop::run(args, format).await,
    }
}

/// Prints the error: as JSON on standard output, or as text on standard error.
fn report(error: &anyhow::Error, format: Format) -> ExitCode {
    if exit::is_broken_pipe(error) {
        return Exit::Success.into();
    }
    let exit = exit::of(error);
    let told = match format {
        Format::Json => output::json(&serde_json::json!({"event": "error", "error": full_message(error.as_ref())})),
        Format::Text => output::complain(&format!("error: {}", full_message(error.as_ref()))),
    };
    // If the output is closed, the exit code still says it.
    drop(told);
    exit.into()
}

/// Servers log what they do. Other commands log errors, and warnings about encoders. `RUST_LOG` overrides both.
fn start_logging(cli: &Cli) {
    let default = match cli.command {
        Command::Coordinator(_) | Command::Worker(_) => "info,slatedb=warn",
        _ => "error,antiphon_model::device=warn,antiphon_worker::trainer=warn,antiphon_model::weights=warn",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    // A server keeps running when its log is closed.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr);
    match cli.format {
        Format::Json => log.json().init(),
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
}
