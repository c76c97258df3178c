//! Checkpoints of a job: cutting one at a turn boundary, and writing it while training goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use antiphon_core::digest::Sha256Hash;
use antiphon_core::event::JobEvent;
use antiphon_core::head::{HeadParts, NamedTensor};
use antiphon_core::ids::{JobId, ModalityName, Turn, WorkerId};
use antiphon_core::numerics::Numerics;
use antiphon_core::parts::{self, HEAD, HEAD_STATE, PROJECTOR};
use antiphon_core::turn::Input;
use antiphon_proto::parts::PartSaved;
use antiphon_proto::v1::{self, coordinator_message::Message};
use antiphon_store::checkpoints::{CheckpointError, CheckpointStore, FORMAT, Manifest, PartEntry};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::tensors::{self, Array, Arrays};
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::refusal::Refusal;
use super::resume::Saved;
use super::trouble::Trouble;
use super::{Completion, Job};
use crate::journal::{Journal, JournalError};

/// A checkpoint in the making.
#[derive(Debug)]
pub(super) struct Cut {
    turn: Turn,
    parts: BTreeMap<String, PartEntry>,
    head: AbortOnDropHandle<Result<Vec<(String, PartEntry)>, String>>,
    /// As they were when it was cut.
    tuned_weights: Option<BTreeMap<ModalityName, f64>>,
    numerics: Numerics,
}

/// How long the checkpoint at hand takes, and for how long training stood still for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    cut: Instant,
    /// While the head was snapshotted, the longest of the workers' snapshots, and turns that waited.
    head: Duration,
    workers: Duration,
    turns: Duration,
    waits: Option<Instant>,
}

impl Pause {
    fn begun(cut: Instant) -> Self {
        Self { cut, head: cut.elapsed(), workers: Duration::ZERO, turns: Duration::ZERO, waits: None }
    }

    /// Notes whether a turn waits for it.
    pub(super) fn note(&mut self, waits: bool) {
        match (waits, self.waits) {
            (true, None) => self.waits = Some(Instant::now()),
            (false, Some(since)) => {
                self.turns += since.elapsed();
                self.waits = None;
            }
            _ => {}
        }
    }

    fn blocked(mut self) -> Duration {
        self.note(false);
        self.head + self.workers + self.turns
    }
}

/// A checkpoint that was just completed.
#[derive(Debug)]
pub(super) struct Written {
    saved: Saved,
    best: bool,
}

impl Job {
    /// Snapshots the head, and begins to write it.
    pub(super) fn begin_cut(&mut self, turn: Turn) -> Result<(), String> {
        let begun = Instant::now();
        let snapshot = self.threads.run(&self.weights, || self.head.snapshot()).map_err(|error| error.to_string())?;
        self.pause = Some(Pause::begun(begun));
        let store = self.store.clone();
        let head = AbortOnDropHandle::new(tokio::spawn(async move {
            let files = tokio::task::spawn_blocking(move || encode_head(snapshot.into_parts())).await;
            let mut entries = Vec::new();
            for (name, bytes) in files.map_err(|error| error.to_string())?? {
                let entry = store.write_part(turn, &name, bytes).await.map_err(|error| error.to_string())?;
                entries.push((name, entry));
            }
            Ok(entries)
        }));
        let (tuned_weights, numerics) = (self.tuned_weights.clone(), self.numerics.clone());
        self.cut = Some(Cut { turn, parts: BTreeMap::new(), head, tuned_weights, numerics });
        Ok(())
    }

    /// Has a worker write its part, as it is when the message comes to it.
    pub(super) fn save_part(&mut self, worker: &WorkerId, turn: Turn) {
        let message = v1::SavePart {
            job: self.id.to_string(),
            term: self.term.0,
            turn: turn.0,
            checkpoint: self.store.checkpoint_url(turn),
        };
        self.send(worker, Message::SavePart(message));
    }

    /// Notes the parts that a worker wrote; they must be its own modality's.
    pub(super) fn add_parts(&mut self, worker: &WorkerId, saved: &PartSaved) -> Result<(), Refusal> {
        let modality = self.machine.modality_of(worker);
        let modality = modality.ok_or_else(|| Refusal::unexpected("the sender has no place in this job"))?;
        let expected = [parts::encoder(modality), parts::encoder_state(modality)];
        let given: Vec<&str> = saved.parts.iter().map(|part| part.name.as_str()).collect();
        if given != expected {
            return Err(Refusal::malformed(format!("part_saved.parts: expected {expected:?}, got {given:?}")));
        }
        let cut = self.cut.as_mut().filter(|cut| cut.turn == saved.turn);
        let cut = cut.ok_or_else(|| Refusal::unexpected(format!("no checkpoint {} is being written", saved.turn)))?;
        if let Some(part) = saved.parts.iter().find(|part| cut.parts.contains_key(&part.name)) {
            return Err(Refusal::unexpected(format!("`{}` of checkpoint {} is saved already", part.name, saved.turn)));
        }
        if let Some(pause) = &mut self.pause {
            pause.workers = pause.workers.max(saved.snapshot);
        }
        for part in &saved.parts {
            let entry = PartEntry { size: part.size, sha256: Sha256Hash(part.sha256) };
            cut.parts.insert(part.name.clone(), entry);
        }
        Ok(())
    }

    /// Takes back what [`Self::add_parts`] noted.
    pub(super) fn remove_parts(&mut self, saved: &PartSaved) {
        if let Some(cut) = &mut self.cut {
            cut.parts.retain(|name, _| saved.parts.iter().all(|part| part.name != *name));
        }
    }

    /// All parts of the workers are there: writes the manifest on a task of its own.
    pub(super) fn complete_cut(&mut self, turn: Turn) -> Result<(), String> {
        let never = || format!("checkpoint {turn} was never begun");
        let cut = self.cut.take().ok_or_else(never)?;
        let antiphon_core::turn::Cut { position, score, .. } = self.machine.cut().ok_or_else(never)?;
        let best = position.best.map(|(_, turn)| turn);
        let manifest = Manifest {
            format: FORMAT,
            job: self.id.clone(),
            term: self.term,
            turn,
            epoch: position.epoch,
            specification: serde_json::from_str(&self.spec.to_json()).map_err(|error| error.to_string())?,
            parts: cut.parts,
            score: *score,
            fusion_weights: cut.tuned_weights,
            samples: Some(self.machine.samples().clone()),
            numerics: cut.numerics,
            state: serde_json::to_value(position).map_err(|error| error.to_string())?,
        };
        let (trouble, keep_newest) = (self.trouble.clone(), self.spec.checkpoints.keep as usize);
        let (store, journal, completions) = (self.store.clone(), self.journal.clone(), self.completions.clone());
        let keep = Keep {
            newest: keep_newest,
            best,
            // A worker may be loading its encoder from one that is old by now.
            in_use: self.members.values().filter_map(|member| member.restores).collect(),
        };
        let completing = tokio::spawn(async move {
            let completion = match write(&store, (&journal, &trouble), manifest, cut.head, keep).await {
                Ok(saved) => Completion::Written(Box::new(Written { best: best == Some(saved.turn), saved })),
                Err(reason) => Completion::Failed(format!("checkpoint {turn}: {reason}")),
            };
            // A job that has ended meanwhile does not want to know.
            let _ = completions.send(completion);
        });
        self.completing = Some(AbortOnDropHandle::new(completing));
        Ok(())
    }

    pub(super) fn written(&mut self, Written { saved, best }: Written) {
        let turn = saved.turn;
        let pause = self.pause.take();
        self.emit(&JobEvent::Checkpoint {
            job: self.id.clone(),
            turn,
            checkpoint: saved.url.clone(),
            digest: saved.digest.clone(),
            best,
            seconds: pause.map_or(0.0, |pause| pause.cut.elapsed().as_secs_f64()),
            blocked: pause.map_or(0.0, |pause| pause.blocked().as_secs_f64()),
        });
        self.newest = Some(saved);
        self.trouble.clear();
        self.give(Input::CheckpointWritten { turn });
    }
}

/// Waits until it is sure that no other coordinator has taken over, however long the store takes, and says so.
async fn reigns(journal: &Journal, trouble: &Trouble) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let asked = tokio::time::timeout(PATIENT, journal.still_reigns()).await;
        match asked {
            Ok(Ok(())) => return Ok(()),
            Err(_) | Ok(Err(JournalError::Slow { .. })) => {
                let seconds = begun.elapsed().as_secs();
                trouble.note(format!("the coordinator's journal has taken no writes for {seconds} s; trying again"));
                warn!(seconds, "a checkpoint waits for the coordinator's journal");
            }
            Ok(Err(error)) => return Err(error.to_string()),
        }
    }
}

/// How long the journal may take a write before that is worth a word.
const PATIENT: Duration = Duration::from_secs(5);

/// Which checkpoints are kept.
struct Keep {
    newest: usize,
    best: Option<Turn>,
    in_use: BTreeSet<Turn>,
}

async fn write(
    store: &CheckpointStore,
    (journal, trouble): (&Journal, &Trouble),
    mut manifest: Manifest,
    head: AbortOnDropHandle<Result<Vec<(String, PartEntry)>, String>>,
    keep: Keep,
) -> Result<Saved, String> {
    let entries = head.await.map_err(|error| error.to_string())??;
    manifest.parts.extend(entries);
    // One that was deposed while it stood still must not complete a checkpoint of the other's, nor clear up after it.
    reigns(journal, trouble).await?;
    let checkpoint = store.complete(&manifest).await.map_err(|error| error.to_string())?;
    reigns(journal, trouble).await?;
    // The checkpoint exists; that an old one could not be removed does not undo it.
    if let Err(error) = store.retain(keep.newest, keep.best, &keep.in_use).await {
        warn!(%error, "old checkpoints were not removed");
    }
    clear_up(store, &manifest.job).await;
    Ok(Saved::of(&manifest, checkpoint.url()))
}

/// Before a job begins: removes what is left of checkpoints that were never completed. Nothing rests on it, so nobody waits long
/// for a store in trouble. Whoever was deposed while it stood still must not clear up after the other.
pub(super) async fn clear_up_before(store: &CheckpointStore, journal: &Journal, job: &JobId) {
    if !matches!(tokio::time::timeout(PATIENT, journal.still_reigns()).await, Ok(Ok(()))) {
        return;
    }
    let store = store.clone().with_retry(RetryPolicy::new(Duration::from_secs(5), 0));
    cleared(job, store.collect_all_garbage().await);
}

/// Removes what is left of checkpoints older than the newest that were never completed.
async fn clear_up(store: &CheckpointStore, job: &JobId) {
    cleared(job, store.collect_garbage(&BTreeSet::new()).await);
}

fn cleared(job: &JobId, removed: Result<usize, CheckpointError>) {
    match removed {
        Ok(0) => {}
        Ok(count) => info!(%job, count, "files of checkpoints that were never completed are removed"),
        Err(error) => warn!(%job, %error, "files of checkpoints that were never completed are left"),
    }
}

fn encode_head(HeadParts { head, state, projector }: HeadParts<f32>) -> Result<Vec<(String, Bytes)>, String> {
    let named = [(HEAD, head), (HEAD_STATE, state), (PROJECTOR, projector)];
    named
        .into_iter()
        .map(|(name, part)| {
            let array = |tensor: NamedTensor<f32>| (tensor.name, Array { shape: tensor.shape, data: tensor.data });
            let arrays: Arrays = part.tensors.into_iter().map(array).collect();
            let bytes = tensors::encode(name, &arrays, &part.note).map_err(|error| error.to_string())?;
            Ok((name.to_owned(), bytes))
        })
        .collect()
}
