//! The job of a checkpoint, trained once more up to its turn, to compare.

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

/// More than a replay writes: the one that is compared is still there when it is read.
const KEEP: u32 = 1000;

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Replayed {
    /// The checkpoint that it began at; none at the beginning.
    from: Option<String>,
    turn: Turn,
    pub(super) same: bool,
    digest: String,
    parts: Vec<Compared>,
}

/// One part, as the checkpoint has it and as the replay made it.
#[derive(Debug, Serialize)]
struct Compared {
    part: String,
    same: bool,
    sha256: Option<Sha256Hash>,
    replayed: Option<Sha256Hash>,
}

/// Runs the job in this process, in a folder that is gone afterwards, from the checkpoint `from` on or from the beginning.
pub(super) async fn run(
    manifest: &Manifest,
    from: Option<&Checkpoint>,
    configure: impl FnOnce(&mut ClusterConfig),
    progress: &Progress,
) -> anyhow::Result<Replayed> {
    let first = from.map_or(Turn(0), |from| from.manifest().turn);
    if first >= manifest.turn && from.is_some() {
        let turn = manifest.turn;
        return Err(anyhow!("--from is at turn {first}; name a checkpoint before turn {turn}")).or_exit(Exit::Usage);
    }
    let from = from.map(Checkpoint::url);
    let mut job = LocalJob::start(specification(manifest)?, from.clone(), configure).await?;
    let replayed = until(&mut job, first, manifest.turn, progress).await?;
    Ok(compare(manifest, replayed.manifest(), from))
}

/// The job of the manifest, which stays as long as it was, because learning rates may depend on it, with one checkpoint: at
/// the turn that is compared.
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
                let reason = finished.reason.unwrap_or_else(|| "it ended before".to_owned());
                bail!("the replay did not come to turn {turn}: {reason}");
            }
            _ => {}
        }
    }
}

fn compare(manifest: &Manifest, replayed: &Manifest, from: Option<String>) -> Replayed {
    let mut names: Vec<&String> = manifest.parts.keys().chain(replayed.parts.keys()).collect();
    names.sort();
    names.dedup();
    let compared = names.into_iter().map(|name| {
        let hash = |manifest: &Manifest| manifest.parts.get(name).map(|entry| entry.sha256);
        let (sha256, replayed) = (hash(manifest), hash(replayed));
        Compared { part: name.clone(), same: sha256 == replayed, sha256, replayed }
    });
    let parts: Vec<Compared> = compared.collect();
    let same = parts.iter().all(|part| part.same);
    Replayed { from, turn: manifest.turn, same, digest: replayed.digest(), parts }
}

impl Replayed {
    /// For people.
    pub(super) fn table(&self) -> String {
        let from = self.from.as_deref().unwrap_or("the beginning");
        let mut text = format!("  replayed from {from} to turn {}\n", self.turn);
        let longest = self.parts.iter().map(|part| part.part.len()).max().unwrap_or(0);
        let short =
            |hash: Option<Sha256Hash>| hash.map_or_else(|| "-".to_owned(), |hash| hash.to_string()[..12].to_owned());
        for Compared { part, same, sha256, replayed } in &self.parts {
            let verdict = match same {
                true => "the same".to_owned(),
                false => format!("DIFFERS: {} here, {} replayed", short(*sha256), short(*replayed)),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "    {part:longest$}  {verdict}");
        }
        let different = self.parts.iter().filter(|part| !part.same).count();
        let _ = match different {
            0 => write!(text, "  the same: {} parts", self.parts.len()),
            _ => write!(text, "  different: {different} of {} parts", self.parts.len()),
        };
        text
    }
}
