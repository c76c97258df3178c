//! The program: parse, run, exit.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use antiphon_model::custom::Encoders;
use antiphon_process::full_message;
use antiphon_store::storage::StoreOptions;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::arguments::{Cli, Command};
use crate::commands;
use crate::context::Context;
use crate::exit::{self, Exit, OrExit as _};
use crate::output::{self, Format};

/// Parses the arguments of this process, runs the command, and returns the exit code of the process.
#[must_use]
pub fn main() -> ExitCode {
    main_with(Encoders::new())
}

/// As [`main`], for a program that registers encoders besides the built-in ones.
#[must_use]
pub fn main_with(encoders: Encoders) -> ExitCode {
    let cli = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
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
    // Threads may still decode or compute; their results are no longer needed.
    runtime.shutdown_background();
    code
}

/// Parses the arguments of a program. The first is the program's name.
///
/// # Errors
/// The arguments are invalid, or ask for help.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = named(Cli::command(), &output::program());
    let parsed = command
        .try_get_matches_from_mut(arguments)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command)));
    parsed.map_err(with_tip)
}

/// Puts the name of this program into the examples of the command. A program with its own encoders chooses its own
/// name.
fn named(command: clap::Command, program: &str) -> clap::Command {
    if program == "antiphon" {
        return command;
    }
    let examples = command.get_after_help().map(|help| {
        let help = help.to_string().replace("\n  antiphon ", &format!("\n  {program} "));
        help.replace("`antiphon ", &format!("`{program} "))
    });
    let command = match examples {
        Some(examples) => command.after_help(examples),
        None => command,
    };
    command.mut_subcommands(|command| named(command, program))
}

/// Adds a tip to the error of a worker without `--modality`.
fn with_tip(mut error: clap::Error) -> clap::Error {
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) if error.kind() == ErrorKind::MissingRequiredArgument => missing,
        _ => return error,
    };
    if missing.iter().any(|argument| argument.starts_with("--modality")) {
        let tip = "name one of the modalities in the job file, as in `--modality audio`; each needs its own worker";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
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
    // If the output is closed, the exit code still reports the failure.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What clap prints about the arguments.
    fn refused(arguments: &[&str]) -> String {
        parse(arguments.iter().map(OsString::from)).expect_err("it does not run").to_string()
    }

    #[test]
    fn a_worker_without_a_modality_is_told_how_to_name_one() {
        let error = refused(&["antiphon", "worker"]);
        assert!(
            error.contains("--modality <MODALITY>") && error.contains("tip: name one of the modalities"),
            "{error}"
        );
        assert!(!refused(&["antiphon", "run"]).contains("tip:"));
    }

    #[test]
    fn examples_have_the_name_of_the_program() {
        let help = |program: &str| {
            let mut command = named(Cli::command(), program);
            command.find_subcommand_mut("coordinator").expect("a command").render_help().to_string()
        };
        assert!(help("antiphon").contains("\n  antiphon coordinator\n"));
        let own = help("custom");
        assert!(own.contains("\n  custom coordinator\n") && own.contains("`custom submit`"), "{own}");
    }
}
