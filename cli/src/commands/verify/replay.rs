//! The job of a checkpoint, trained once more up to its turn, to compare.

use std::fmt::Write as _;

use antiphon_core::digest::Sha256Hash;
use antiphon_core::event::JobEvent;
use antiphon_core::ids::Turn;
use antiphon_core::spec::{Every, JobSpec};
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_store::checkpoints::{Checkpoint, Manifest};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::VerifyArgs;
use crate::client::Client;
use crate::cluster::{Cluster, ClusterConfig, STORE_PATIENCE};
use crate::exit::{Exit, OrExit as _};
use crate::predictor::Progress;

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

/// Runs the job in this process, in a folder that is gone afterwards.
pub(super) async fn run(
    args: &VerifyArgs,
    checkpoint: &Checkpoint,
    (stores, patience): (&StoreOptions, &RetryPolicy),
    progress: &Progress,
) -> anyhow::Result<Replayed> {
    let manifest = checkpoint.manifest();
    let from = match &args.from {
        None => None,
        Some(url) => Some(super::open(url, stores, patience, progress).await?),
    };
    let first = from.as_ref().map_or(Turn(0), |from| from.manifest().turn);
    if first >= manifest.turn && from.is_some() {
        let turn = manifest.turn;
        return Err(anyhow!("--from is at turn {first}; name a checkpoint before turn {turn}")).or_exit(Exit::Usage);
    }
    args.device.open().or_exit(Exit::Usage)?;
    let spec = specification(manifest)?;
    let state = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut cluster = Cluster::start(ClusterConfig {
        state: state.path().display().to_string(),
        modalities: spec.modalities.iter().map(|modality| modality.name.clone()).collect(),
        decode_threads: 1,
        data_memory: args.data_memory << 20,
        head_memory: args.head_memory << 20,
        head_threads: 0,
        stores: *stores,
        store_patience: STORE_PATIENCE,
        device: args.device,
    })
    .await?;
    let mut client = Client::of_own(&cluster.url())?;
    let from = from.map(|from| from.url());
    let request =
        SubmitJobRequest { specification: spec.to_json(), job: None, resume: from.clone(), ..Default::default() };
    let replayed = tokio::select! {
        replayed = until(&mut client, request, first, manifest.turn, progress) => replayed?,
        failed = cluster.failed() => {
            return Err(failed.err().unwrap_or_else(|| anyhow!("a part of the replay ended before the job did")));
        }
    };
    Ok(compare(manifest, replayed.manifest(), from))
}

/// The job of the manifest, which stays as long as it was, because learning rates may depend on it, with one checkpoint: at
/// the turn that is compared.
fn specification(manifest: &Manifest) -> anyhow::Result<JobSpec> {
    let mut spec = JobSpec::from_json(&manifest.specification.to_string()).context("the job in the manifest")?;
    spec.checkpoints.to = None;
    spec.checkpoints.every = Every::Turns(manifest.turn.0.max(1));
    spec.checkpoints.keep = KEEP;
    spec.evaluation.every = Every::End;
    Ok(spec)
}

/// Follows the job to the checkpoint at `turn`.
async fn until(
    client: &mut Client,
    request: SubmitJobRequest,
    first: Turn,
    turn: Turn,
    progress: &Progress,
) -> anyhow::Result<Checkpoint> {
    let job = client.submit(request).await?;
    let mut events = client.watch(&job, 0).await?;
    while let Some(event) = events.next().await {
        match event?.event {
            JobEvent::Started { .. } => progress.begin_counting("replaying", turn.0 - first.0, "turns"),
            JobEvent::Step(step) => progress.at(step.turn.0.saturating_sub(first.0)),
            JobEvent::Checkpoint { turn: written, checkpoint, .. } if written == turn => {
                let replayed = Checkpoint::open_url(&checkpoint).await?;
                client.stop(&job, false).await?;
                return Ok(replayed);
            }
            JobEvent::Finished(finished) => {
                let reason = finished.reason.unwrap_or_else(|| "it ended before".to_owned());
                bail!("the replay did not come to turn {turn}: {reason}");
            }
            _ => {}
        }
    }
    Err(anyhow!("the coordinator ended the events of {job}")).or_exit(Exit::Unreachable)
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
