//! `antiphon verify CHECKPOINT`: whether a checkpoint is what its manifest says, and what the job comes to.

mod parts;
mod replay;

use std::fmt::Write as _;

use antiphon_core::digest::Sha256Hash;
use antiphon_core::ids::{JobId, Turn};
use antiphon_process::Interrupts;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError};
use antiphon_worker::device::DeviceChoice;
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

Exit codes: 0 it is sound (and the replay gave the same), 1 it is damaged or differs, 2 there is no such checkpoint")]
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
    /// What is wrong with it.
    reason: Option<String>,
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
pub async fn run(args: VerifyArgs, format: Format) -> anyhow::Result<Exit> {
    let opened = Checkpoint::open_url(&args.checkpoint).await;
    let exit = if matches!(opened, Err(CheckpointError::Manifest { .. })) { Exit::Failed } else { Exit::Usage };
    let checkpoint = opened.or_exit(exit)?;
    let progress = Progress::new();
    let mut interrupts = Interrupts::listen()?;
    let work = async {
        let verdicts = progress.during("checking", parts::check(&checkpoint)).await;
        if format == Format::Text {
            print(&checkpoint, &verdicts)?;
        }
        let replayed = if args.replay { Some(replay::run(&args, &checkpoint, &progress).await?) } else { None };
        Ok::<_, anyhow::Error>((verdicts, replayed))
    };
    let done = tokio::select! {
        done = work => done,
        () = interrupts.next() => {
            progress.clear();
            return Ok(Exit::Interrupted);
        }
    };
    progress.clear();
    let (verdicts, replayed) = done?;
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
    Ok(if sound && same { Exit::Success } else { Exit::Failed })
}

fn print(checkpoint: &Checkpoint, verdicts: &[Verdict]) -> anyhow::Result<()> {
    let manifest = checkpoint.manifest();
    let mut text = format!("{}\n", checkpoint.url());
    writeln!(text, "  job {}, turn {}, {} epochs complete", manifest.job, manifest.turn, manifest.epoch)?;
    let longest = verdicts.iter().map(|verdict| verdict.part.len()).max().unwrap_or(0);
    for Verdict { part, size, sha256, reason, .. } in verdicts {
        let size = size.map_or_else(|| "-".to_owned(), |size| size.to_string());
        let hash = sha256.map_or_else(|| "-".to_owned(), |hash| hash.to_string()[..12].to_owned());
        let state = reason.as_deref().map_or_else(|| "sound".to_owned(), |reason| format!("DAMAGED: {reason}"));
        writeln!(text, "    {part:longest$}  {size:>12} bytes  {hash:12}  {state}")?;
    }
    let damaged = verdicts.iter().filter(|verdict| !verdict.sound).count();
    match damaged {
        0 => writeln!(text, "  sound: {} parts", verdicts.len())?,
        _ => writeln!(text, "  damaged: {damaged} of {} parts", verdicts.len())?,
    }
    let whose = if damaged == 0 { "" } else { ", as the manifest has it" };
    write!(text, "  digest {}{whose}", manifest.digest())?;
    Ok(output::line(&text)?)
}
