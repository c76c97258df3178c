//! `antiphon verify CHECKPOINT`: whether a checkpoint is what its manifest says, and what the job comes to.

mod parts;
mod replay;

use std::fmt::Write as _;
use std::time::Duration;

use antiphon_core::digest::Sha256Hash;
use antiphon_core::ids::{JobId, Turn};
use antiphon_model::device::DeviceChoice;
use antiphon_process::Interrupts;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use serde::Serialize;

use crate::exit::{Exit, OrExit as _};
use crate::output::{self, Format};
use crate::predictor::Progress;
use replay::Replayed;

/// Check a checkpoint's files, and train it again to compare
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon verify antiphon-runs/JOB                              the newest checkpoint of a run
  antiphon verify s3://runs/jobs/JOB/checkpoints/00000300
  antiphon verify antiphon-runs/JOB --replay                     train it again from the beginning
  antiphon verify antiphon-runs/JOB --replay --from antiphon-runs/JOB/checkpoints/00000300

Every part is compared with the manifest by size and SHA-256, read as tensors, and compared with the job that the manifest
holds: its modalities, shapes, numbers of steps. Nothing is written.

--replay runs that job once more, here, in a temporary folder, up to the checkpoint's turn, and compares the SHA-256 of every
part. It takes the same data at the same paths, and as long as the job took; --from begins at an earlier checkpoint. The same
bits are promised on the same kind of machine and device only. A job that was resumed with other learning rates is to be
replayed from where they changed.

What the store refuses is tried again for --store-patience. What cannot be read then is not called damaged; what is missing is.

Exit codes: 0 it is sound (and the replay gave the same), 1 it is damaged or differs, 2 there is no such checkpoint, 3 it could
not be read, or not all of it, and what could is sound")]
pub struct VerifyArgs {
    /// The checkpoint: its folder or URL, or the folder of a run, whose newest is meant
    pub checkpoint: String,

    /// Train the job again up to this checkpoint, and compare every part
    #[arg(long)]
    pub replay: bool,

    /// Begin the replay at this checkpoint rather than at the beginning
    #[arg(long, value_name = "CHECKPOINT", requires = "replay")]
    pub from: Option<String>,

    /// Mebibytes of undecoded samples kept in memory per modality and split, in a replay
    #[arg(long, default_value_t = 256, value_name = "MIB", requires = "replay")]
    pub data_memory: u64,

    /// Mebibytes that the shared head may take, in a replay
    #[arg(long, default_value_t = 4096, value_name = "MIB", requires = "replay", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub head_memory: u64,

    /// Seconds that the store may be in trouble before what it does not give counts as what could not be read
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub store_patience: u32,

    /// Where the encoders compute in a replay: auto, cpu, cuda or cuda:1
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// What was found of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Verdict {
    part: String,
    /// Bytes, as the manifest says; none where it does not name the part.
    size: Option<u64>,
    sha256: Option<Sha256Hash>,
    sound: bool,
    state: State,
    /// What is wrong with it, or why it could not be read.
    reason: Option<String>,
}

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Sound,
    Damaged,
    /// The store did not give it, so nobody knows.
    Unread,
}

/// How many parts are so.
fn count(verdicts: &[Verdict], state: State) -> usize {
    verdicts.iter().filter(|verdict| verdict.state == state).count()
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
    parts: &'a [Verdict],
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<&'a Replayed>,
}

/// Verifies, and replays if asked to.
///
/// # Errors
/// There is no such checkpoint, or the replay cannot be made.
pub async fn run(args: VerifyArgs, format: Format, stores: &StoreOptions) -> anyhow::Result<Exit> {
    let progress = Progress::new();
    let mut interrupts = Interrupts::listen()?;
    let tell = progress.clone();
    let patience = RetryPolicy::new(Duration::from_secs(args.store_patience.into()), 0)
        .on_retry(move |retry| tell.held_up(retry.to_string()));
    let work = async {
        let checkpoint = open(&args.checkpoint, stores, &patience, &progress).await?;
        let verdicts = progress.during("checking", parts::check(&checkpoint)).await;
        if format == Format::Text {
            print(&checkpoint, &verdicts)?;
        }
        let replayed = if args.replay {
            Some(replay::run(&args, &checkpoint, (stores, &patience), &progress).await?)
        } else {
            None
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
    let (checkpoint, verdicts, replayed) = done?;
    let sound = verdicts.iter().all(|verdict| verdict.sound);
    let same = replayed.as_ref().is_none_or(|replayed| replayed.same);
    match format {
        Format::Json => output::json(&Verified {
            event: "verified",
            checkpoint: checkpoint.url(),
            job: &checkpoint.manifest().job,
            turn: checkpoint.manifest().turn,
            epoch: checkpoint.manifest().epoch,
            digest: checkpoint.manifest().digest(),
            sound,
            parts: &verdicts,
            replay: replayed.as_ref(),
        })?,
        Format::Text => {
            if let Some(replayed) = &replayed {
                output::line(&replayed.table())?;
            }
        }
    }
    Ok(match (same && count(&verdicts, State::Damaged) == 0, sound) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Unreachable,
        (true, true) => Exit::Success,
    })
}

/// The checkpoint, or an error with the exit code that the help promises.
async fn open(
    url: &str,
    stores: &StoreOptions,
    patience: &RetryPolicy,
    progress: &Progress,
) -> anyhow::Result<Checkpoint> {
    let opened = progress.during("opening", Checkpoint::open_with(url, stores, patience)).await;
    let exit = match &opened {
        Err(CheckpointError::Manifest { .. }) => Exit::Failed,
        // A bucket that is not there holds no checkpoint.
        Err(CheckpointError::Request { source: object_store::Error::NotFound { .. }, .. }) => Exit::Usage,
        Err(CheckpointError::Request { .. }) => Exit::Unreachable,
        _ => Exit::Usage,
    };
    opened.or_exit(exit)
}

fn print(checkpoint: &Checkpoint, verdicts: &[Verdict]) -> anyhow::Result<()> {
    let manifest = checkpoint.manifest();
    let mut text = format!("{}\n", checkpoint.url());
    writeln!(text, "  job {}, turn {}, {} epochs complete", manifest.job, manifest.turn, manifest.epoch)?;
    let longest = verdicts.iter().map(|verdict| verdict.part.len()).max().unwrap_or(0);
    for Verdict { part, size, sha256, state, reason, .. } in verdicts {
        let size = size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let hash = sha256.map_or_else(|| "-".to_owned(), |hash| hash.to_string()[..12].to_owned());
        let verdict = match state {
            State::Sound => "sound",
            State::Damaged => "DAMAGED: ",
            State::Unread => "could not be read: ",
        };
        let reason = reason.as_deref().unwrap_or_default();
        writeln!(text, "    {part:longest$}  {size:>12} bytes  {hash:12}  {verdict}{reason}")?;
    }
    let (damaged, unread, all) = (count(verdicts, State::Damaged), count(verdicts, State::Unread), verdicts.len());
    if damaged > 0 {
        writeln!(text, "  damaged: {damaged} of {all} parts")?;
    }
    if unread > 0 {
        writeln!(text, "  could not be read: {unread} of {all} parts")?;
    }
    let is_sound = damaged + unread == 0;
    if is_sound {
        writeln!(text, "  sound: {all} parts")?;
    }
    let whose = if is_sound { "" } else { ", as the manifest has it" };
    write!(text, "  digest {}{whose}", manifest.digest())?;
    Ok(output::line(&text)?)
}
