//! `antiphon coordinator` and `antiphon worker`: the servers.

use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};

use antiphon_coordinator::config::CoordinatorArgs;
use antiphon_coordinator::edge::server;
use antiphon_process::innermost;
use antiphon_worker::WorkerArgs;
use anyhow::bail;
use clap::Arg;

use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::lab::lifeline;
use crate::output::Format;

pub(crate) const COORDINATOR_EXAMPLES: &str = "\
Examples:
  antiphon coordinator
  antiphon coordinator --listen 127.0.0.1:7071 --state /data/runs
  antiphon coordinator --state s3://runs/antiphon --head-memory 16384
  antiphon coordinator --listen 0.0.0.0:7070 --insecure-allow-remote

Start one `antiphon worker` for each modality, then send jobs with `antiphon submit`. After Ctrl-C, jobs write a checkpoint and the \
coordinator ends. The next coordinator with the same --state resumes them.";

pub(crate) const WORKER_EXAMPLES: &str = "\
Examples:
  antiphon worker --modality audio
  antiphon worker --modality audio --coordinator http://10.0.0.5:7070
  antiphon worker --modality image --name image-1 --device cuda:0

A job needs one worker for each of its modalities, and workers read the job's data themselves. A worker serves one job after another. \
After Ctrl-C it completes its current step and ends; the job waits for another worker of that modality.";

/// Replaces the help text of some options of the coordinator by a longer one.
pub(crate) fn explained(option: Arg) -> Arg {
    match option.get_id().as_str() {
        "listen" => option.value_name("IP:PORT"),
        "state" => option.value_name("DIR|URL"),
        "heartbeat_seconds" | "stop_within_seconds" => option.value_name("SECONDS"),
        "keep_jobs" => option.help(
            "Number of ended jobs that the coordinator retains, for `antiphon jobs` and `antiphon follow`. When another job ends, \
             the one that ended first is removed from the state with its events, and its id is free again; its checkpoints stay",
        ),
        "replay_memory" => option.help(
            "Memory for the replay buffer of each job, in MiB. The buffer holds the heads of all turns since the last checkpoint: a \
             worker that replaces another one replays them. Heads that do not fit go to the file of --replay-disk",
        ),
        "replay_disk" => option.help(
            "Size limit of the temporary file of each job's replay buffer, in MiB; the file is in TMPDIR. When memory and file are \
             nearly full, the job writes a checkpoint early, which empties the buffer; when they are full, its turns wait for it",
        ),
        _ => option,
    }
}

/// Runs a coordinator until Ctrl-C or SIGTERM.
///
/// # Errors
/// It cannot listen, or serving fails.
pub async fn coordinator(args: &CoordinatorArgs, context: &Context) -> anyhow::Result<Exit> {
    check_state(&args.state).or_exit(Exit::Usage)?;
    let Err(error) = server::listen(args, context.stores, lifeline::shutdown()?).await else {
        return Ok(Exit::Success);
    };
    let exit = error.exit();
    // As JSON, the error is printed to standard output, which is not where the log goes.
    if exit == Exit::Failed && context.format == Format::Json {
        tracing::error!(%error, "the coordinator stops because of an error");
    }
    Err(error).or_exit(exit)
}

/// Checks that the state, if it is a folder, is writable. Otherwise the coordinator would retry its store indefinitely.
fn check_state(state: &str) -> anyhow::Result<()> {
    if state.contains("://") {
        return Ok(());
    }
    let path = std::path::absolute(state)?;
    let folder = path.ancestors().find(|folder| folder.exists()).unwrap_or(&path);
    match tempfile::tempdir_in(folder) {
        // Unlike a full disk, these errors are permanent.
        Err(error) if matches!(error.kind(), PermissionDenied | NotADirectory | ReadOnlyFilesystem | NotFound) => {
            bail!("cannot write to `{state}`: {}; name another folder with --state", innermost(&error))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Runs a worker until Ctrl-C, SIGTERM, or the coordinator shuts down.
///
/// # Errors
/// The coordinator cannot be reached, or ends the connection.
pub async fn worker(args: WorkerArgs, context: &Context) -> anyhow::Result<Exit> {
    let config = args.complete(context.stores, context.encoders.clone()).or_exit(Exit::Usage)?;
    let Err(error) = antiphon_worker::run(config, lifeline::shutdown()?).await else { return Ok(Exit::Success) };
    // As JSON, the error is printed to standard output, which is not where the log goes.
    if context.format == Format::Json {
        tracing::error!(%error, "the worker stops because of an error");
    }
    let exit = error.exit();
    Err(error).or_exit(exit)
}
