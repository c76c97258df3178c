//! The checkpoint that a job resumes from, loaded and checked against the specification.

use std::collections::BTreeMap;

use antiphon_core::event::BestCheckpoint;
use antiphon_core::files::{HEAD, HEAD_STATE, PROJECTOR};
use antiphon_core::head::{self, HeadFiles, HeadFilesError, NamedTensor, SharedHead};
use antiphon_core::ids::{ModalityName, Term, Turn};
use antiphon_core::numerics::Numerics;
use antiphon_core::spec::{JobSpec, SpecErrors};
use antiphon_core::turn::{Position, SplitSizes};
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore, Manifest};
use antiphon_store::tensors::{self, Array, TensorsError};

use super::same_job::{OtherJob, same_job};
use super::specification::Specification;

/// A complete checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    pub(super) turn: Turn,
    pub(super) url: String,
    pub(super) digest: String,
    /// The validation score and turn of the best checkpoint so far, this one or an earlier one.
    pub(super) best: Option<(f64, Turn)>,
}

impl Saved {
    pub(super) fn new(manifest: &Manifest, url: String) -> Self {
        Self { turn: manifest.turn, url, digest: manifest.digest(), best: best(manifest) }
    }
}

/// The validation score and turn of the best checkpoint: this one, or the best one when it was started.
pub(crate) fn best(manifest: &Manifest) -> Option<(f64, Turn)> {
    // If the position is invalid, the job that resumes from it reports the error.
    let position: Position = serde_json::from_value(manifest.state.clone()).ok()?;
    position.best
}

/// The best checkpoint in the form of the event.
pub(crate) fn best_checkpoint(store: &CheckpointStore, (score, turn): (f64, Turn)) -> BestCheckpoint {
    BestCheckpoint { turn, checkpoint: store.checkpoint_url(turn), score }
}

/// A loaded checkpoint that a job resumes from.
#[derive(Debug)]
pub struct Resumed {
    pub(super) head: SharedHead<f32>,
    pub(super) position: Position,
    pub(super) tuned_weights: Option<BTreeMap<ModalityName, f64>>,
    /// The samples that each modality was trained with. Empty if the checkpoint does not contain them.
    pub(super) samples: BTreeMap<ModalityName, SplitSizes>,
    pub(super) numerics: Numerics,
    pub(super) saved: Saved,
    term: Term,
}

/// Why a job cannot resume from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Read(#[from] CheckpointError),
    /// The checkpoint does not fit the job, or is incomplete.
    #[error("cannot resume from checkpoint `{url}`: {source}")]
    Unfit {
        /// The checkpoint.
        url: String,
        /// What is wrong with it.
        source: Box<Unfit>,
    },
}

/// What is wrong with a checkpoint that can be read.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Its specification is invalid.
    #[error(transparent)]
    Specification(#[from] SpecErrors),
    /// Its specification belongs to another job.
    #[error(transparent)]
    OtherJob(#[from] OtherJob),
    /// Its position is invalid.
    #[error("its state cannot be read: {0}; use the version of antiphon that wrote it")]
    Position(#[from] serde_json::Error),
    /// A file that its manifest names is missing.
    #[error(transparent)]
    Missing(CheckpointError),
    /// A file is damaged.
    #[error(transparent)]
    File(#[from] TensorsError),
    /// Its head does not fit this job.
    #[error(transparent)]
    Head(#[from] HeadFilesError),
}

impl Resumed {
    /// Loads the head and the position of a checkpoint, for a job whose own checkpoints are in `store`.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or does not fit the job.
    pub(crate) async fn load(
        checkpoint: &Checkpoint,
        spec: &Specification,
        store: &CheckpointStore,
    ) -> Result<Self, ResumeError> {
        let url = checkpoint.url();
        let manifest = checkpoint.manifest();
        let position = read_position(manifest, spec);
        let mut position = position.map_err(|source| ResumeError::Unfit { url: url.clone(), source: source.into() })?;
        if store.checkpoint_url(manifest.turn) != url {
            // The best checkpoint so far belongs to another job, which may remove it at any time.
            position.best = None;
        }
        let head = load_head(checkpoint, spec).await?;
        let saved = Saved { best: position.best, ..Saved::new(manifest, url) };
        let samples = manifest.samples.clone().unwrap_or_default();
        let (tuned_weights, numerics) = (manifest.fusion_weights.clone(), manifest.numerics.clone());
        Ok(Self { head, position, tuned_weights, samples, numerics, saved, term: manifest.term })
    }

    /// The URL of the checkpoint.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.saved.url
    }

    /// Turns applied.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.saved.turn
    }

    /// The term that the checkpoint was written in.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }
}

fn read_position(manifest: &Manifest, spec: &JobSpec) -> Result<Position, Unfit> {
    let before = JobSpec::from_json(&manifest.specification.to_string())?;
    same_job(&before, spec)?;
    Ok(serde_json::from_value(manifest.state.clone())?)
}

async fn load_head(checkpoint: &Checkpoint, spec: &JobSpec) -> Result<SharedHead<f32>, ResumeError> {
    let unfit = |source: Unfit| ResumeError::Unfit { url: checkpoint.url(), source: source.into() };
    let load = async |name: &str| {
        let bytes = checkpoint.file(name).await.map_err(|error| match error.is_missing() {
            true => unfit(Unfit::Missing(error)),
            false => error.into(),
        })?;
        let (arrays, note) = tensors::decode(name, &bytes).map_err(|error| unfit(error.into()))?;
        let tensor = |(name, array): (String, Array)| NamedTensor { name, shape: array.shape, data: array.data };
        Ok::<_, ResumeError>(head::TensorFile { tensors: arrays.into_iter().map(tensor).collect(), note })
    };
    let files =
        HeadFiles { head: load(HEAD).await?, state: load(HEAD_STATE).await?, projector: load(PROJECTOR).await? };
    SharedHead::from_files(&spec.head, spec.labels.classes.count(), &files).map_err(|error| unfit(error.into()))
}
