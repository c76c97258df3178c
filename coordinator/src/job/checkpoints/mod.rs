//! Checkpoints of a job. They start at a turn boundary and are written while training continues.
//!
//! ```text
//! begin ──▶ head snapshotted, encoded and uploaded by a task ──────────┐
//!   └─▶ each worker uploads its own files ─▶ add_files ─▶ complete ────┴─▶ manifest ─▶ Completion ─▶ written
//! ```
//!
//! Invariants: one checkpoint is pending at a time; a manifest is written only after the journal has confirmed that
//! this coordinator is still the leader; a failed upload or manifest is returned as a completion, never as a panic.

mod stall_time;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use antiphon_core::digest::Sha256Hash;
use antiphon_core::event::{BestCheckpoint, JobEvent};
use antiphon_core::files;
use antiphon_core::head::HeadSnapshot;
use antiphon_core::ids::{ModalityName, Turn, WorkerId};
use antiphon_core::numerics::Numerics;
use antiphon_core::turn::Input;
use antiphon_proto::files::FilesSaved;
use antiphon_proto::v1::{self, coordinator_message::Message};
use antiphon_store::checkpoints::{CheckpointStore, FORMAT, FileEntry, Manifest};
use antiphon_store::retry::RetryPolicy;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::context::Context;
use super::error::{JobError, SaveError};
use super::refusal::Refusal;
use super::resume::{Saved, best_checkpoint};
use super::store_errors::StoreErrors;
use super::turns::Turns;
use crate::journal::Journal;
use stall_time::StallTime;
pub(super) use write::clean_up_before;
use write::{Keep, Target, write_head, write_manifest};

/// The checkpoints of one job.
#[derive(Debug)]
pub(super) struct Checkpoints {
    context: Arc<Context>,
    writer: Writer,
    /// Store errors of this coordinator's own requests.
    errors: StoreErrors,
    pending: Option<PendingCheckpoint>,
    stall: Option<StallTime>,
    /// The task that writes the manifest, which is aborted with the job.
    completing: Option<AbortOnDropHandle<()>>,
    newest: Option<Saved>,
}

/// What is needed to write checkpoints.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) store: CheckpointStore,
    /// The journal, which confirms leadership before a manifest is written.
    pub(super) journal: Journal,
    /// The channel for results of checkpoints.
    pub(super) completions: mpsc::UnboundedSender<Completion>,
}

/// The result of writing a manifest.
pub(super) type Completion = Result<Written, JobError>;

/// A checkpoint that was started and has no manifest yet.
#[derive(Debug)]
struct PendingCheckpoint {
    turn: Turn,
    files: BTreeMap<String, FileEntry>,
    head: AbortOnDropHandle<Result<Vec<(String, FileEntry)>, SaveError>>,
    state: EvaluationState,
}

/// The contents of a checkpoint besides head, encoders and position, at its start.
#[derive(Debug)]
pub(super) struct EvaluationState {
    pub(super) tuned_weights: Option<BTreeMap<ModalityName, f64>>,
    pub(super) numerics: Numerics,
}

/// A checkpoint that was just completed.
#[derive(Debug)]
pub(super) struct Written {
    saved: Saved,
    /// Whether it has the best validation score so far.
    best: bool,
}

impl Checkpoints {
    /// The checkpoints of a job that resumes from `newest`, if it resumes.
    pub(super) fn new(context: Arc<Context>, writer: Writer, retry: RetryPolicy, newest: Option<Saved>) -> Self {
        let errors = StoreErrors::default();
        let store = writer.store.with_retry(errors.noting(retry));
        Self {
            context,
            writer: Writer { store, ..writer },
            errors,
            pending: None,
            stall: None,
            completing: None,
            newest,
        }
    }

    /// Starts a checkpoint of this snapshot, which was requested at `started`, and starts to write the head.
    pub(super) fn begin(&mut self, turn: Turn, started: Instant, snapshot: HeadSnapshot<f32>, state: EvaluationState) {
        self.stall = Some(StallTime::since(started));
        let head = tokio::spawn(write_head(self.writer.store.clone(), turn, snapshot).in_current_span());
        let head = AbortOnDropHandle::new(head);
        self.pending = Some(PendingCheckpoint { turn, files: BTreeMap::new(), head, state });
    }

    /// The message that asks a worker for its files. The worker snapshots its encoder when it reads the message.
    pub(super) fn save_message(&self, turn: Turn) -> Message {
        Message::SaveFiles(v1::SaveFiles {
            job: self.context.id.to_string(),
            term: self.context.term.0,
            turn: turn.0,
            checkpoint: self.writer.store.checkpoint_url(turn),
        })
    }

    /// Records the files that a worker wrote.
    ///
    /// # Errors
    /// If they are not the files of its modality, no such checkpoint is pending, or they are recorded already.
    pub(super) fn add_files(&mut self, worker: &WorkerId, saved: &FilesSaved, turns: &Turns) -> Result<(), Refusal> {
        let modality = turns.machine.modality_of(worker).ok_or_else(Refusal::no_slot)?;
        let expected = [files::encoder(modality), files::encoder_state(modality)];
        let given: Vec<&str> = saved.files.iter().map(|file| file.name.as_str()).collect();
        if given != expected {
            return Err(Refusal::malformed(format!("files_saved.files: expected {expected:?}, got {given:?}")));
        }
        let pending = self.pending.as_mut().filter(|pending| pending.turn == saved.turn);
        let pending =
            pending.ok_or_else(|| Refusal::unexpected(format!("no checkpoint {} is being written", saved.turn)))?;
        if let Some(file) = saved.files.iter().find(|file| pending.files.contains_key(&file.name)) {
            return Err(Refusal::unexpected(format!("`{}` of checkpoint {} is saved already", file.name, saved.turn)));
        }
        if let Some(stall) = &mut self.stall {
            stall.add_worker(saved.snapshot);
        }
        for file in &saved.files {
            let entry = FileEntry { size: file.size, sha256: Sha256Hash(file.sha256) };
            pending.files.insert(file.name.clone(), entry);
        }
        Ok(())
    }

    /// Undoes [`Self::add_files`].
    pub(super) fn remove_files(&mut self, saved: &FilesSaved) {
        if let Some(pending) = &mut self.pending {
            pending.files.retain(|name, _| saved.files.iter().all(|file| file.name != *name));
        }
    }

    /// Writes the manifest on a separate task, which sends a [`Completion`]. All files of workers must be written.
    /// `in_use` are checkpoints that workers are loading.
    ///
    /// # Errors
    /// If the manifest cannot be created.
    pub(super) fn complete(&mut self, turn: Turn, in_use: BTreeSet<Turn>, turns: &Turns) -> Result<(), SaveError> {
        let pending = self.pending.take().ok_or(SaveError::NotPending)?;
        let antiphon_core::turn::PendingCheckpoint { position, score, .. } =
            turns.machine.pending_checkpoint().ok_or(SaveError::NotPending)?;
        let best = position.best.map(|(_, turn)| turn);
        let manifest = Manifest {
            format: FORMAT,
            job: self.context.id.clone(),
            term: self.context.term,
            turn,
            epoch: position.epoch,
            specification: serde_json::from_str(self.context.spec.json())?,
            files: pending.files,
            score: *score,
            fusion_weights: pending.state.tuned_weights,
            samples: Some(turns.machine.samples().clone()),
            numerics: pending.state.numerics,
            state: serde_json::to_value(position)?,
        };
        let target = Target {
            store: self.writer.store.clone(),
            journal: self.writer.journal.clone(),
            errors: self.errors.clone(),
        };
        let keep = Keep { newest: self.context.spec.checkpoints.keep as usize, best, in_use };
        let completions = self.writer.completions.clone();
        let completing = async move {
            let written = match write_manifest(&target, manifest, pending.head, keep).await {
                Ok(saved) => Ok(Written { best: best == Some(saved.turn), saved }),
                Err(source) => Err(JobError::Checkpoint { turn, source }),
            };
            // The error means that the job has ended in the meantime.
            let _ended = completions.send(written);
        };
        self.completing = Some(AbortOnDropHandle::new(tokio::spawn(completing.in_current_span())));
        Ok(())
    }

    /// Records a complete checkpoint.
    pub(super) fn written(&mut self, Written { saved, best }: Written) -> Input {
        let turn = saved.turn;
        let stall = self.stall.take();
        self.context.emit(&JobEvent::Checkpoint {
            job: self.context.id.clone(),
            turn,
            checkpoint: saved.url.clone(),
            digest: saved.digest.clone(),
            best,
            seconds: stall.map_or(0.0, |stall| stall.taken().as_secs_f64()),
            stall_seconds: stall.map_or(0.0, |stall| stall.stalled().as_secs_f64()),
        });
        self.newest = Some(saved);
        self.errors.clear();
        Input::CheckpointWritten { turn }
    }

    /// Records whether a turn waits for the pending checkpoint.
    pub(super) fn note_wait(&mut self, waits: bool) {
        if let Some(stall) = &mut self.stall {
            stall.note(waits);
        }
    }

    /// The URL of the folder of all checkpoints of the job.
    pub(super) fn url(&self) -> String {
        self.writer.store.url()
    }

    /// The newest complete checkpoint.
    pub(super) fn newest(&self) -> Option<&Saved> {
        self.newest.as_ref()
    }

    /// The best complete checkpoint. A pending checkpoint does not count.
    pub(super) fn best(&self) -> Option<BestCheckpoint> {
        let best = self.newest.as_ref().and_then(|newest| newest.best);
        best.map(|best| best_checkpoint(&self.writer.store, best))
    }

    /// The last store error of this coordinator's own requests.
    pub(super) fn store_error(&self) -> Option<String> {
        self.errors.message()
    }

    /// Whether this coordinator's own requests have failed for a long time.
    pub(super) fn store_errors_last_long(&self) -> bool {
        self.errors.last_long()
    }
}
