//! A trained model from a checkpoint, with the data to use it on.

use std::sync::Arc;

use antiphon_core::files::HEAD;
use antiphon_core::fusion::FusionRule;
use antiphon_core::head::Head;
use antiphon_core::ids::{ModalityName, Split};
use antiphon_core::join::JoinError;
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{
    DataSpec, FusionSpec, JobSpec, KnownEncoders, ModalitySpec, Override, Precision, ValidationSource, parse_knowing,
};
use antiphon_data::{DataError, Dataset, OpenOptions, PrefetchOptions};
use antiphon_model::custom::Encoders;
use antiphon_store::checkpoints::{Checkpoint, Manifest};
use antiphon_store::tensors::{self, Array, Arrays};
use antiphon_worker::trainer::{Machine, Model, encoder_file};
use anyhow::{Context as _, anyhow, bail};
use serde::de::IgnoredAny;

use super::arguments::{DataPattern, Source};
use super::error::PredictorError;
use crate::exit::{Exit, OrExit as _};
use crate::progress::Progress;
use crate::runs::advised;

/// Whether labels are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// Labels are read, and every sample must have one.
    Required,
    /// Labels are read if they exist.
    Optional,
    /// Labels are not read.
    Ignored,
}

/// A checkpoint that is ready to predict, with its data.
pub struct Predictor {
    checkpoint: Checkpoint,
    spec: JobSpec,
    split: Split,
    fusion: FusionSpec,
    pub(super) head: Head<f32>,
    /// The modalities, in the order of the job.
    pub(super) modalities: Vec<Modality>,
    pub(super) chunk: usize,
    pub(super) prefetch: PrefetchOptions,
}

pub(super) struct Modality {
    pub(super) name: ModalityName,
    /// The model and data; None if the modality is dropped, or has no data in this split.
    pub(super) ready: Option<Ready>,
    dropped: bool,
}

pub(super) struct Ready {
    pub(super) model: Model,
    pub(super) data: Arc<Dataset>,
}

impl Predictor {
    /// Opens a checkpoint and its data.
    ///
    /// # Errors
    /// The checkpoint is missing or damaged, the options do not fit the checkpoint, or data cannot be read.
    pub async fn open(source: &Source, labels: Labels, encoders: &Encoders) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open_url(&source.checkpoint).await.map_err(advised)?;
        let file = format!("{}/manifest.json", checkpoint.url());
        let text = checkpoint.manifest().specification.to_string();
        let set = spread(&source.set, &checkpoint.manifest().specification);
        // An encoder that the program does not have is reported when the model is built.
        let (mut spec, _) = parse_knowing(&text, &file, &set, &|_| None, KnownEncoders::Any)?;
        let names: Vec<ModalityName> = spec.modalities.iter().map(|modality| modality.name.clone()).collect();
        source.check(&names)?;
        let fusion = fusion(source, &spec, checkpoint.manifest())?;
        let machine = Machine { device: source.device.open()?, encoders: encoders.clone() };
        for modality in &mut spec.modalities {
            override_data(modality, &source.data);
            // Files hold f32, whatever the precision of training, and the processor computes in f32 only.
            if machine.device.is_cpu() {
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
                let model = Model::from_file(&spec, modality, &checkpoint.file(&encoder_file(&name)).await?, &machine)?;
                // The checkpoint determines how a value is read, for example which frames of a clip.
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

    /// The opened checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The checkpoint's job, with the data that are read instead of the original ones.
    #[must_use]
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// The split that is read.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// The fusion rule of the arguments, or of the job.
    #[must_use]
    pub fn fusion(&self) -> &FusionSpec {
        &self.fusion
    }

    /// All modalities of the job, in its order.
    #[must_use]
    pub fn modalities(&self) -> Vec<ModalityName> {
        self.modalities.iter().map(|modality| modality.name.clone()).collect()
    }

    /// The modalities of the job that are left out.
    #[must_use]
    pub fn dropped(&self) -> Vec<ModalityName> {
        self.modalities.iter().filter(|m| m.dropped).map(|modality| modality.name.clone()).collect()
    }

    /// Number of samples, summed over modalities: the rows that [`Predictor::samples`] reads.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.modalities.iter().filter_map(|m| m.ready.as_ref()).map(|ready| ready.data.len() as u64).sum()
    }

    /// The rule for `Prediction::of`, over all modalities of the job.
    ///
    /// # Errors
    /// The rule is tuned, but the checkpoint has no tuned weights.
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
}

/// The fusion rule of the arguments, or of the job. Tuned weights must exist, unless this split determines them.
fn fusion(source: &Source, spec: &JobSpec, manifest: &Manifest) -> Result<FusionSpec, PredictorError> {
    let Some(given) = &source.fusion else { return Ok(spec.fusion.clone()) };
    if *given == FusionSpec::Tuned && manifest.fusion_weights.is_none() && source.split != Split::Validation {
        return Err(PredictorError::NoTunedWeights { checkpoint: source.checkpoint.clone() });
    }
    Ok(given.clone())
}

/// Replaces the job's files by those of the arguments, for every split.
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
        // The columns of files from `antiphon data synth`.
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
            anyhow!(error).context(format!(
                "pass `--set {set}=COLUMN` to name the column of `{name}`, or `--drop \
                 {name}` to leave the modality out"
            ))
        }
        other => other.into(),
    })
}

/// Applies changes of the shared `data` to every modality, because the job in a checkpoint repeats `data` for each
/// modality.
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

/// Loads W and b. They must fit the job, which `--set` can change.
async fn load_head(checkpoint: &Checkpoint, spec: &JobSpec) -> anyhow::Result<Head<f32>> {
    let (mut arrays, _): (Arrays, IgnoredAny) = tensors::decode(HEAD, &checkpoint.file(HEAD).await?)?;
    let mut take = |name: &str| arrays.remove(name).with_context(|| format!("`{HEAD}` has no tensor `{name}`"));
    let (weight, bias): (Array, Array) = (take("weight")?, take("bias")?);
    let (classes, width) = (spec.labels.classes.count(), spec.head.width as usize);
    if weight.shape != [classes, width] {
        let shape = &weight.shape;
        bail!(
            "the checkpoint's head has shape {shape:?}, but the job has {classes} classes and a head of width {width}"
        );
    }
    Ok(Head::new(Matrix::from_vec(classes, width, weight.data)?, bias.data)?)
}

/// Like [`Predictor::open`], but on a separate task, so that Ctrl-C does not wait for it.
pub(crate) async fn open(
    source: Source,
    labels: Labels,
    encoders: &Encoders,
    progress: &Progress,
) -> anyhow::Result<Predictor> {
    let encoders = encoders.clone();
    let opening = tokio::spawn(async move { Predictor::open(&source, labels, &encoders).await });
    progress.during("opening", opening).await.context("opening the checkpoint panicked")?.or_exit(Exit::Usage)
}

/// Attaches the exit code: usage error for invalid data, failure for everything else.
pub(crate) fn exit_of(error: anyhow::Error) -> anyhow::Error {
    let data = error.is::<DataError>() || error.is::<JoinError>();
    Err::<(), _>(error).or_exit(if data { Exit::Usage } else { Exit::Failed }).expect_err("it is an error")
}
