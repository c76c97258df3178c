//! `antiphon verify CHECKPOINT`: compares a checkpoint with its manifest, and with the job trained again.

mod files;
mod replay;
mod verdict;

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use antiphon_core::ids::{JobId, Turn};
use antiphon_model::device::DeviceChoice;
use antiphon_process::Interrupts;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use serde::Serialize;

use super::damage::{find_damage, with_undamaged};
use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::lab::cluster::ClusterConfig;
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::runs::{advised, complete_epochs};
use replay::Replayed;
use verdict::{State, Verdict, count};

/// Check the files of a checkpoint, or train it again to compare
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon verify antiphon-runs/JOB
  antiphon verify s3://runs/jobs/JOB/checkpoints/00000300
  antiphon verify antiphon-runs/JOB --replay
  antiphon verify runs/JOB --replay --from runs/JOB/checkpoints/00000300

Every file is compared with the manifest by size and SHA-256, and decoded. Its tensors are compared with the job in the manifest: \
modalities, shapes and numbers of steps. Nothing is written.

--replay trains the job again on this machine, in a temporary folder, up to the turn of the checkpoint. Then it compares the SHA-256 \
of every file. It needs the same data at the same paths, and takes as long as the job did. --from starts at an earlier checkpoint. \
Replays give the same bits only on the same kind of machine and device. If a job was resumed with other learning rates, start the \
replay at the checkpoint where they changed.

Failed requests to the store are retried for --store-retry-timeout. A file that cannot be read then is `unreadable`, not damaged. A \
file that does not exist is damaged.

Exit codes: 0 the checkpoint is sound and the replay gave the same files, 1 it is damaged or differs, 2 there is no such checkpoint, \
3 files could not be read and the others are sound")]
pub struct VerifyArgs {
    /// Folder or URL of the checkpoint, or of a run for its newest checkpoint
    pub checkpoint: String,

    /// Train the job again up to this checkpoint, and compare every file
    #[arg(long)]
    pub replay: bool,

    /// Start the replay at this checkpoint instead of the beginning
    #[arg(long, value_name = "CHECKPOINT", requires = "replay")]
    pub from: Option<String>,

    /// Memory for encoded samples in a replay, in MiB per modality and split; the rest goes to a temporary file
    #[arg(long, default_value_t = 256, value_name = "MIB", requires = "replay")]
    pub data_memory: u64,

    /// Memory limit of the shared head in a replay, in MiB
    #[arg(long, default_value_t = 4096, value_name = "MIB", requires = "replay", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub head_memory: u64,

    /// Seconds to retry a store that fails, before a file counts as unreadable
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub store_retry_timeout: u32,

    /// Device of the encoders in a replay: auto, cpu, cuda or cuda:N
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Verified<'a> {
    event: &'static str,
    checkpoint: String,
    job: &'a JobId,
    turn: Turn,
    epoch: u64,
    digest: String,
    sound: bool,
    files: &'a [Verdict],
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<&'a Replayed>,
}

/// Runs the command.
///
/// # Errors
/// There is no such checkpoint, or the replay fails.
pub async fn run(args: VerifyArgs, context: &Context) -> anyhow::Result<Exit> {
    let Context { format, stores, encoders } = context;
    let progress = Progress::new();
    let mut interrupts = Interrupts::listen()?;
    let tell = progress.clone();
    let policy = RetryPolicy::new(Duration::from_secs(args.store_retry_timeout.into()), 0)
        .on_retry(move |retry| tell.delayed(retry.to_string()));
    let work = async {
        let checkpoint = open(&args.checkpoint, stores, &policy, &progress).await?;
        let verdicts = progress.during("checking", files::check(&checkpoint, encoders)).await;
        if *format == Format::Text {
            print(&checkpoint, &verdicts)?;
        }
        let replayed = match args.replay {
            true => Some(replayed(&args, &checkpoint, (context, &policy), &progress).await?),
            false => None,
        };
        Ok::<_, anyhow::Error>((checkpoint, verdicts, replayed))
    };
    let done = tokio::select! {
        done = work => done,
        () = interrupts.next() => {
            progress.clear();
            return Ok(Exit::Interrupted);
        }
    };
    progress.clear();
    let (checkpoint, verdicts, replayed) = match done {
        Ok(done) => done,
        Err(error) => return Err(with_undamaged(error, &args.checkpoint, stores, resume_from).await),
    };
    let sound = verdicts.iter().all(|verdict| verdict.sound);
    let same = replayed.as_ref().is_none_or(|replayed| replayed.same);
    match format {
        Format::Json => print_json(&checkpoint, &verdicts, replayed.as_ref())?,
        Format::Text => {
            if let Some(replayed) = &replayed {
                output::line(&replayed.table())?;
            }
            if count(&verdicts, State::Damaged) > 0
                && let Some(damaged) = find_damage(&checkpoint.url(), stores).await
            {
                output::line(&format!("  {}", damaged.advice(resume_from)))?;
            }
        }
    }
    Ok(match (same && count(&verdicts, State::Damaged) == 0, sound) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Unreachable,
        (true, true) => Exit::Success,
    })
}

/// Says how to use an undamaged checkpoint.
fn resume_from(checkpoint: &str) -> String {
    format!("resume from it with `{} run JOB.yaml --resume {}`", output::program(), output::quoted(checkpoint))
}

/// Replays the job up to the checkpoint, from --from or from the beginning.
async fn replayed(
    args: &VerifyArgs,
    checkpoint: &Checkpoint,
    (context, policy): (&Context, &RetryPolicy),
    progress: &Progress,
) -> anyhow::Result<Replayed> {
    let from = match &args.from {
        None => None,
        Some(url) => Some(open(url, &context.stores, policy, progress).await?),
    };
    args.device.open().or_exit(Exit::Usage)?;
    let configure = |config: &mut ClusterConfig| {
        (config.data_memory, config.head_memory) = (args.data_memory << 20, args.head_memory << 20);
        (config.device, config.stores) = (args.device, context.stores);
        config.encoders = context.encoders.clone();
    };
    replay::run(checkpoint.manifest(), from.as_ref(), configure, progress).await
}

/// Opens the checkpoint. Errors have the exit codes of the help text.
async fn open(
    url: &str,
    stores: &StoreOptions,
    policy: &RetryPolicy,
    progress: &Progress,
) -> anyhow::Result<Checkpoint> {
    let opened = progress.during("opening", Checkpoint::open_with(url, stores, policy)).await;
    let exit = match &opened {
        Err(CheckpointError::Manifest { .. }) => Exit::Failed,
        // A bucket that does not exist holds no checkpoint.
        Err(CheckpointError::Request { source: object_store::Error::NotFound { .. }, .. }) => Exit::Usage,
        Err(CheckpointError::Request { .. }) => Exit::Unreachable,
        _ => Exit::Usage,
    };
    opened.map_err(advised).or_exit(exit)
}

fn print_json(checkpoint: &Checkpoint, verdicts: &[Verdict], replay: Option<&Replayed>) -> io::Result<()> {
    let manifest = checkpoint.manifest();
    output::json(&Verified {
        event: "verified",
        checkpoint: checkpoint.url(),
        job: &manifest.job,
        turn: manifest.turn,
        epoch: complete_epochs(manifest),
        digest: manifest.digest(),
        sound: verdicts.iter().all(|verdict| verdict.sound),
        files: verdicts,
        replay,
    })
}

fn print(checkpoint: &Checkpoint, verdicts: &[Verdict]) -> anyhow::Result<()> {
    let manifest = checkpoint.manifest();
    let mut text = format!("{}\n", checkpoint.url());
    let epochs = output::counted(complete_epochs(manifest), "epoch");
    writeln!(text, "  job {}, turn {}, {epochs} complete", manifest.job, manifest.turn)?;
    let longest = verdicts.iter().map(|verdict| verdict.file.len()).max().unwrap_or(0);
    for Verdict { file, size, sha256, state, reason, .. } in verdicts {
        let size = size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let hash = sha256.map_or_else(|| "-".to_owned(), |hash| hash.to_string()[..12].to_owned());
        let verdict = match state {
            State::Sound => "sound",
            State::Damaged => "DAMAGED: ",
            State::Unreadable => "unreadable: ",
        };
        let reason = reason.as_deref().unwrap_or_default();
        writeln!(text, "    {file:longest$}  {size:>12} bytes  {hash:12}  {verdict}{reason}")?;
    }
    let (damaged, unreadable) = (count(verdicts, State::Damaged), count(verdicts, State::Unreadable));
    let all = verdicts.len();
    if damaged > 0 {
        writeln!(text, "  damaged: {damaged} of {all} files")?;
    }
    if unreadable > 0 {
        writeln!(text, "  unreadable: {unreadable} of {all} files")?;
    }
    let is_sound = damaged + unreadable == 0;
    if is_sound {
        writeln!(text, "  sound: {all} files")?;
    }
    let source = if is_sound { "" } else { ", as in the manifest" };
    write!(text, "  digest {}{source}", manifest.digest())?;
    Ok(output::line(&text)?)
}
