//! Trains the job of a checkpoint again up to the checkpoint's turn, and compares the files.

use std::fmt::Write as _;

use antiphon_core::digest::Sha256Hash;
use antiphon_core::event::JobEvent;
use antiphon_core::ids::Turn;
use antiphon_core::spec::{Every, JobSpec};
use antiphon_store::checkpoints::{Checkpoint, Manifest};
use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;

use crate::exit::{Exit, OrExit as _};
use crate::lab::cluster::ClusterConfig;
use crate::lab::local_job::LocalJob;
use crate::progress::Progress;

/// More checkpoints than a replay writes, so that the compared one is not deleted before it is read.
const KEEP: u32 = 1000;

/// The result of a replay.
#[derive(Debug, Serialize)]
pub(super) struct Replayed {
    /// The checkpoint that the replay started at; None for the beginning of the job.
    from: Option<String>,
    turn: Turn,
    pub(super) same: bool,
    digest: String,
    files: Vec<Compared>,
}

/// One file, in the checkpoint and in the replay.
#[derive(Debug, Serialize)]
struct Compared {
    file: String,
    same: bool,
    sha256: Option<Sha256Hash>,
    replayed: Option<Sha256Hash>,
}

/// Runs the job in this process, in a temporary folder, from the checkpoint `from` or from the beginning.
pub(super) async fn run(
    manifest: &Manifest,
    from: Option<&Checkpoint>,
    configure: impl FnOnce(&mut ClusterConfig),
    progress: &Progress,
) -> anyhow::Result<Replayed> {
    let first = from.map_or(Turn(0), |from| from.manifest().turn);
    if first >= manifest.turn && from.is_some() {
        let turn = manifest.turn;
        return Err(anyhow!(
            "the checkpoint of --from is at turn {first}; name one before turn \
             {turn}"
        ))
        .or_exit(Exit::Usage);
    }
    let from = from.map(Checkpoint::url);
    let mut job = LocalJob::start(specification(manifest)?, from.clone(), configure).await?;
    let replayed = until(&mut job, first, manifest.turn, progress).await?;
    Ok(compare(manifest, replayed.manifest(), from))
}

/// The job in the manifest, changed to write a checkpoint at the compared turn only. Its length stays, because learning
/// rates may depend on it.
fn specification(manifest: &Manifest) -> anyhow::Result<JobSpec> {
    let mut spec = JobSpec::from_json(&manifest.specification.to_string()).context("the job in the manifest")?;
    spec.checkpoints.every = Every::Turns(manifest.turn.0.max(1));
    spec.checkpoints.keep = KEEP;
    spec.evaluation.every = Every::End;
    Ok(spec)
}

/// Follows the job to the checkpoint at `turn`.
async fn until(job: &mut LocalJob, first: Turn, turn: Turn, progress: &Progress) -> anyhow::Result<Checkpoint> {
    loop {
        match job.next().await? {
            JobEvent::Started { .. } => progress.begin_counting("replaying", turn.0 - first.0, "turns"),
            JobEvent::Step(step) => progress.at(step.turn.0.saturating_sub(first.0)),
            JobEvent::Checkpoint { turn: written, checkpoint, .. } if written == turn => {
                let replayed = Checkpoint::open_url(&checkpoint).await?;
                job.request_stop().await?;
                return Ok(replayed);
            }
            JobEvent::Finished(finished) => {
                let reason = finished.reason.unwrap_or_else(|| "it ended earlier".to_owned());
                bail!("the replay did not reach turn {turn}: {reason}");
            }
            _ => {}
        }
    }
}

fn compare(manifest: &Manifest, replayed: &Manifest, from: Option<String>) -> Replayed {
    let mut names: Vec<&String> = manifest.files.keys().chain(replayed.files.keys()).collect();
    names.sort();
    names.dedup();
    let compared = names.into_iter().map(|name| {
        let hash = |manifest: &Manifest| manifest.files.get(name).map(|entry| entry.sha256);
        let (sha256, replayed) = (hash(manifest), hash(replayed));
        Compared { file: name.clone(), same: sha256 == replayed, sha256, replayed }
    });
    let files: Vec<Compared> = compared.collect();
    let same = files.iter().all(|file| file.same);
    Replayed { from, turn: manifest.turn, same, digest: replayed.digest(), files }
}

impl Replayed {
    /// The result as text.
    pub(super) fn table(&self) -> String {
        let from = self.from.as_deref().unwrap_or("the beginning");
        let mut text = format!("  replayed from {from} to turn {}\n", self.turn);
        let longest = self.files.iter().map(|compared| compared.file.len()).max().unwrap_or(0);
        let short =
            |hash: Option<Sha256Hash>| hash.map_or_else(|| "-".to_owned(), |hash| hash.to_string()[..12].to_owned());
        for Compared { file, same, sha256, replayed } in &self.files {
            let verdict = match same {
                true => "the same".to_owned(),
                false => format!("DIFFERS: {} here, {} replayed", short(*sha256), short(*replayed)),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    {file:longest$}  {verdict}");
        }
        let different = self.files.iter().filter(|compared| !compared.same).count();
        let _ = match different {
            0 => write!(text, "  the same: {} files", self.files.len()),
            _ => write!(text, "  different: {different} of {} files", self.files.len()),
        };
        text
    }
}
