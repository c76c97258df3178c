//! A trained model out of a checkpoint, and the samples of a split with what each modality says of them.
//!
//! ```text
//! checkpoint ─ head, models ─┐
//! data of each modality ─────┴ Pass (in order of id, chunk by chunk) ─ Join ─ Sample ─┬ eval: Evaluator
//!                                                                                     └ predict: Prediction ─ file
//! ```
//! Memory holds one chunk of logits per modality, however large the data. Every answer is a function of one sample alone:
//! neither the chunks nor the order of rows in the files have a part in it.

mod arguments;
mod error;
mod output_file;
mod parquet;
mod prediction;
mod progress;
mod samples;

use std::sync::Arc;

use antiphon_core::fusion::FusionRule;
use antiphon_core::head::Head;
use antiphon_core::ids::{ModalityName, Split};
use antiphon_core::join::JoinError;
use antiphon_core::linalg::Matrix;
use antiphon_core::parts::HEAD;
use antiphon_core::spec::{DataSpec, FusionSpec, JobSpec, ModalitySpec, Override, Precision, ValidationSource, parse};
use antiphon_data::{DataError, Dataset, OpenOptions, PrefetchOptions};
use antiphon_store::checkpoints::{Checkpoint, Manifest};
use antiphon_store::tensors::{self, Array, Arrays};
use antiphon_worker::trainer::{Model, encoder_part};
use anyhow::{Context as _, anyhow, bail};
use serde::de::IgnoredAny;

pub use arguments::{DataPattern, Source};
pub use error::PredictorError;
pub use output_file::OutputFile;
pub use prediction::{Named, Prediction, Weighed};
pub use samples::{Sample, Samples};

pub(crate) use output_file::write_line;
pub(crate) use progress::{Progress, until_interrupted};

use crate::exit::{Exit, OrExit as _};

/// What becomes of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// Every sample must have one.
    Required,
    /// Those that are there are passed on.
    Optional,
    /// None is read.
    Ignored,
}

/// A checkpoint ready to answer, with the data that it is asked about.
pub struct Predictor {
    checkpoint: Checkpoint,
    spec: JobSpec,
    split: Split,
    fusion: FusionSpec,
    head: Head<f32>,
    /// In the order of the job.
    modalities: Vec<Modality>,
    chunk: usize,
    prefetch: PrefetchOptions,
}

struct Modality {
    name: ModalityName,
    /// None if it is dropped, or has no data in this split.
    ready: Option<Ready>,
    dropped: bool,
}

struct Ready {
    model: Model,
    data: Arc<Dataset>,
}

impl Predictor {
    /// Opens a checkpoint and the data that are to be answered for.
    ///
    /// # Errors
    /// A checkpoint that is missing or damaged, options that do not fit it, data that cannot be read.
    pub async fn open(source: &Source, labels: Labels) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open_url(&source.checkpoint).await?;
        let file = format!("{}/manifest.json", checkpoint.url());
        let text = checkpoint.manifest().specification.to_string();
        let mut spec = parse(&text, &file, &spread(&source.set, &checkpoint.manifest().specification), &|_| None)?;
        let names: Vec<ModalityName> = spec.modalities.iter().map(|modality| modality.name.clone()).collect();
        source.check(&names)?;
        let fusion = fusion(source, &spec, checkpoint.manifest())?;
        let device = source.device.open()?;
        for modality in &mut spec.modalities {
            override_data(modality, &source.data);
            // Parameters are in f32 whatever they were trained with, and so is all that main memory computes.
            if device.is_cpu() {
                modality.precision = Precision::F32;
            }
        }
        let head = load_head(&checkpoint, &spec).await?;
        let options = OpenOptions { memory: source.data_memory << 20, ..OpenOptions::new(antiphon_worker::stores()) };
        let mut modalities = Vec::new();
        for modality in &spec.modalities {
            let name = modality.name.clone();
            let dropped = source.drop.iter().any(|dropped| dropped == name.as_str());
            let ready = if dropped || !Dataset::is_declared(modality, source.split) {
                None
            } else {
                let model = Model::from_part(&spec, modality, &checkpoint.part(&encoder_part(&name)).await?, &device)?;
                // What is read of a value (which frames of a clip) is the checkpoint's to say, as is what is made of it.
                let modality = ModalitySpec { input: model.preprocessor.input().clone(), ..modality.clone() };
                let data = open_data(&modality, &spec, source.split, labels, &options).await?;
                Some(Ready { model, data: Arc::new(data) })
            };
            modalities.push(Modality { name, ready, dropped });
        }
        if modalities.iter().all(|modality| modality.ready.is_none()) {
            return Err(PredictorError::NoSplit { split: source.split }.into());
        }
        let chunk = source.chunk.unwrap_or(spec.evaluation.chunk).max(1) as usize;
        let threads = source.decode_threads.max(1);
        let prefetch = PrefetchOptions { threads, depth: threads + 1 };
        Ok(Self { checkpoint, split: source.split, fusion, head, modalities, chunk, prefetch, spec })
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The job that it is of, with the data that are read here.
    #[must_use]
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// The split that is gone through.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// The rule of fusion that was asked for, or the job's.
    #[must_use]
    pub fn fusion(&self) -> &FusionSpec {
        &self.fusion
    }

    /// All modalities of the job, in its order.
    #[must_use]
    pub fn modalities(&self) -> Vec<ModalityName> {
        self.modalities.iter().map(|modality| modality.name.clone()).collect()
    }

    /// Those that answers are made without, though the job has them.
    #[must_use]
    pub fn dropped(&self) -> Vec<ModalityName> {
        self.modalities.iter().filter(|m| m.dropped).map(|modality| modality.name.clone()).collect()
    }

    /// Samples of all modalities together: how many rows [`Predictor::samples`] goes through.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.modalities.iter().filter_map(|m| m.ready.as_ref()).map(|ready| ready.data.len() as u64).sum()
    }

    /// The rule as [`Prediction::of`] takes it, over all modalities of the job.
    ///
    /// # Errors
    /// Tuned weights are asked for, but the checkpoint has none.
    pub fn rule(&self) -> Result<FusionRule, PredictorError> {
        let weights = match &self.fusion {
            FusionSpec::Entropy => return Ok(FusionRule::Entropy),
            FusionSpec::Mean => return Ok(FusionRule::Mean),
            FusionSpec::Fixed(weights) => weights,
            FusionSpec::Tuned => {
                let tuned = self.checkpoint.manifest().fusion_weights.as_ref();
                tuned.ok_or_else(|| PredictorError::NoTunedWeights { checkpoint: self.checkpoint.url() })?
            }
        };
        let weight = |modality: &Modality| weights.get(&modality.name).copied().unwrap_or(0.0);
        Ok(FusionRule::Weights(self.modalities.iter().map(weight).collect()))
    }

    /// Every sample that has one of the modalities, once, by ascending bytes of the ids.
    #[must_use]
    pub fn samples(&self) -> Samples<'_> {
        Samples::new(self)
    }
}

/// The rule that was asked for, or the job's. Tuned weights must be there if they were asked for, unless this split yields
/// them.
fn fusion(source: &Source, spec: &JobSpec, manifest: &Manifest) -> Result<FusionSpec, PredictorError> {
    let Some(given) = &source.fusion else { return Ok(spec.fusion.clone()) };
    if *given == FusionSpec::Tuned && manifest.fusion_weights.is_none() && source.split != Split::Validation {
        return Err(PredictorError::NoTunedWeights { checkpoint: source.checkpoint.clone() });
    }
    Ok(given.clone())
}

/// Puts the files that were given in the place of the job's, whichever split is asked for.
fn override_data(modality: &mut ModalitySpec, given: &[DataPattern]) {
    let of = |name: Option<&ModalityName>| -> Vec<String> {
        given.iter().filter(|data| data.modality.as_ref() == name).map(|data| data.pattern.clone()).collect()
    };
    let own = of(Some(&modality.name));
    let files = if own.is_empty() { of(None) } else { own };
    if files.is_empty() {
        return;
    }
    let (column, id) = match &modality.data {
        DataSpec::Parquet { column, id, .. } => (column.clone(), id.clone()),
        // As `antiphon data synth` writes them.
        DataSpec::Synth { column, .. } => (column.clone(), Some("id".to_owned())),
    };
    let validation = ValidationSource::Files(files.clone());
    modality.data = DataSpec::Parquet { train: files.clone(), validation, test: files, column, id };
}

async fn open_data(
    modality: &ModalitySpec,
    spec: &JobSpec,
    split: Split,
    labels: Labels,
    options: &OpenOptions,
) -> anyhow::Result<Dataset> {
    let opened = match labels {
        Labels::Required => Dataset::open(modality, &spec.labels, split, spec.seed, options).await,
        Labels::Optional => Dataset::open_to_predict(modality, Some(&spec.labels), split, spec.seed, options).await,
        Labels::Ignored => Dataset::open_to_predict(modality, None, split, spec.seed, options).await,
    };
    opened.map_err(|error| match error {
        DataError::NoColumn { ref key, .. } => {
            let name = &modality.name;
            let set = if *key == "labels.column" { (*key).to_owned() } else { format!("modalities.{name}.{key}") };
            anyhow!(error).context(format!("`{name}` needs `--set {set}=COLUMN`, or `--drop {name}` to do without it"))
        }
        other => other.into(),
    })
}

/// Changes of the shared `data` are changes of every modality's: a checkpoint's job has all of it written out.
fn spread(set: &[Override], specification: &serde_json::Value) -> Vec<Override> {
    let modalities = specification["modalities"].as_array().into_iter().flatten();
    let names: Vec<&str> = modalities.filter_map(|modality| modality["name"].as_str()).collect();
    let to_each = |change: &Override| -> Vec<Override> {
        let text = change.to_string();
        if !text.starts_with("data.") {
            return vec![change.clone()];
        }
        names.iter().map(|name| Override::from(format!("modalities.{name}.{text}"))).collect()
    };
    set.iter().flat_map(to_each).collect()
}

/// W and b, which must fit the job: `--set` can say anything.
async fn load_head(checkpoint: &Checkpoint, spec: &JobSpec) -> anyhow::Result<Head<f32>> {
    let (mut arrays, _): (Arrays, IgnoredAny) = tensors::decode(HEAD, &checkpoint.part(HEAD).await?)?;
    let mut take = |name: &str| arrays.remove(name).with_context(|| format!("`{HEAD}` has no tensor `{name}`"));
    let (weight, bias): (Array, Array) = (take("weight")?, take("bias")?);
    let (classes, width) = (spec.labels.classes.count(), spec.head.width as usize);
    if weight.shape != [classes, width] {
        let shape = &weight.shape;
        bail!(
            "the checkpoint's head has shape {shape:?}, but the job says {classes} classes and a head of width {width}"
        );
    }
    Ok(Head::new(Matrix::from_vec(classes, width, weight.data)?, bias.data)?)
}

/// As [`Predictor::open`], on a task of its own, so that Ctrl-C need not wait for it.
pub(crate) async fn open(source: Source, labels: Labels, progress: &Progress) -> anyhow::Result<Predictor> {
    let opening = tokio::spawn(async move { Predictor::open(&source, labels).await });
    progress.during("opening", opening).await.context("opening ended in a panic")?.or_exit(Exit::Usage)
}

/// Bad data are the user's to put right; anything else on the way is a failure.
pub(crate) fn exit_of(error: anyhow::Error) -> anyhow::Error {
    let data = error.is::<DataError>() || error.is::<JoinError>();
    Err::<(), _>(error).or_exit(if data { Exit::Usage } else { Exit::Failed }).expect_err("it is an error")
}
