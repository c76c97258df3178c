//! The job specification in which every field has a value, as coordinator and workers read it.
//!
//! Parsing and validation are beside this file. A [`JobSpec`] from [`super::parse`] satisfies every rule in the
//! documentation of its fields. A whole job is serialised in the spelling of a job file. Sections alone are serialised
//! only for state that no other program reads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{JobName, ModalityName};

mod encoder;
mod schedule;

pub use encoder::*;
pub use schedule::*;

/// A whole job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// The name of the job, for display. It need not be unique.
    pub name: JobName,
    /// The seed of every random stream.
    pub seed: u64,
    /// In the order of the job file, which is the order of a cyclic cycle. At least one.
    pub modalities: Vec<ModalitySpec>,
    /// What is predicted.
    pub labels: LabelSpec,
    /// The shared head.
    pub head: HeadSpec,
    /// How long it trains, and the order of turns.
    pub schedule: ScheduleSpec,
    /// The rule that selects the best checkpoint. Evaluations report every rule.
    pub fusion: FusionSpec,
    /// Where and how often checkpoints are written.
    pub checkpoints: CheckpointSpec,
    /// How often the validation split is evaluated.
    pub evaluation: EvaluationSpec,
}

/// One modality: its data, its encoder, its workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModalitySpec {
    /// The name of the modality, unique in the job.
    pub name: ModalityName,
    /// Where samples come from.
    pub data: DataSpec,
    /// How a raw value becomes numbers.
    pub input: InputSpec,
    /// The network f_m.
    pub encoder: EncoderSpec,
    /// What the encoder starts from, and which parameters are trained.
    #[serde(default)]
    pub transfer: TransferSpec,
    /// The number format in which the encoder computes.
    #[serde(default)]
    pub precision: Precision,
    /// The optimizer of the encoder (and adapter).
    pub optimizer: OptimizerSpec,
    /// The bounds on its number of workers.
    pub workers: WorkerRange,
}

/// Bounds on a modality's replica group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerRange {
    /// Training waits until this many are ready. At least 1.
    pub min: u32,
    /// The largest number that is used. At least `min`.
    pub max: u32,
}

/// Where a modality's samples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "source", rename_all = "lowercase", deny_unknown_fields)]
pub enum DataSpec {
    /// Parquet files.
    Parquet {
        /// Paths or URLs, each with `*` and `?` allowed in the last segments. Not empty.
        train: Vec<String>,
        /// The validation split; a fraction of train by default.
        validation: ValidationSource,
        /// The files of the test split. Empty if there is no test split.
        test: Vec<String>,
        /// The column that holds this modality.
        column: String,
        /// The column that pairs samples across modalities; None pairs rows by their number.
        id: Option<String>,
    },
    /// The generated data set.
    Synth {
        /// Which generated data set.
        kind: SynthKind,
        /// The column of this modality (`audio`, `image`, `text`).
        column: String,
        /// Samples per split.
        samples: SynthSamples,
        /// Share of samples that lack this modality, 0 ≤ m < 1.
        missing: f64,
        /// Seed of the generator, independent of the job's, so that jobs with different seeds share one data set.
        seed: u64,
    },
}

/// Generated data sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SynthKind {
    /// Written, spoken and described digits: columns `image`, `audio`, `text`.
    SpokenDigits,
    /// Two feature vectors per sample: columns `a`, `b`.
    Features,
}

/// Sizes of the splits of a generated data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthSamples {
    /// At least 1.
    pub train: u64,
    /// May be 0.
    pub validation: u64,
    /// May be 0.
    pub test: u64,
}

/// Where the validation split comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValidationSource {
    /// Separate files.
    Files(Vec<String>),
    /// This share of train (0 ≤ f < 1), chosen by a hash of the sample's id and the job's seed: the same samples in
    /// every modality. 0 means no validation split.
    Fraction(f64),
}

/// How a raw value becomes numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum InputSpec {
    /// Decided by the column's type and the first bytes of its first value, with the defaults of that kind.
    Auto,
    /// PNG or JPEG to (channels, height, width), scaled to [-1, 1].
    Image {
        /// Height in pixels. None means the size of the first image. Given if and only if `width` is given.
        height: Option<u32>,
        /// Width in pixels.
        width: Option<u32>,
        /// 1 (grey) or 3 (RGB).
        channels: u32,
        /// Frames taken from each clip (a list of images), 1 to 256. The clip is divided into this many equal sections,
        /// and the middle frame of each is taken; shorter clips repeat frames. The features of a clip are the mean over
        /// its frames. Single images have 1 frame.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        frames: u32,
    },
    /// WAV, FLAC or MP3 to a log-mel spectrogram (1, mels, frames).
    Audio {
        /// Sample rate in Hz. Every recording is resampled to it.
        sample_rate: u32,
        /// The length in seconds to which recordings are truncated or padded with silence.
        seconds: f64,
        /// Mel bands.
        mels: u32,
        /// Samples per Fourier window, a power of two, at least twice `mels`, no longer than the recording.
        window: u32,
        /// Samples between windows, at most `window`.
        hop: u32,
    },
    /// UTF-8 text to token ids.
    Text {
        /// How text is split into tokens.
        tokenizer: TokenizerSpec,
        /// Tokens; longer texts are truncated.
        max_tokens: u32,
    },
    /// A fixed-size list of numbers.
    Features {
        /// Whether to subtract the training split's mean and divide by its standard deviation.
        standardise: bool,
    },
}

fn one() -> u32 {
    1
}

fn is_one(frames: &u32) -> bool {
    *frames == 1
}

/// How text is split into tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerSpec {
    /// UTF-8 bytes, 256 tokens and a padding token.
    Byte,
    /// Path or URL of a Hugging Face `tokenizer.json`; ends in `.json`.
    File(String),
}

/// What is predicted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSpec {
    /// The column, the same in every modality's files.
    pub column: String,
    /// The classes.
    pub classes: Classes,
}

/// The classes of a job, at least 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Classes {
    /// Labels are integers 0 .. n - 1.
    Count(u32),
    /// Labels are these strings, all different, or their positions in this list.
    Names(Vec<String>),
}

impl Classes {
    /// C.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Count(n) => *n as usize,
            Self::Names(names) => names.len(),
        }
    }
}

/// The shared head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSpec {
    /// s, the length of the encoders' features.
    pub width: u32,
    /// The projection of the head's steps.
    pub projection: ProjectionSpec,
    /// The head's optimizer.
    pub optimizer: OptimizerSpec,
}

/// The projector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum ProjectionSpec {
    /// P is always I.
    Off,
    /// Recursive least squares over all turns (the paper).
    Rls {
        /// The regulariser α.
        alpha: Alpha,
        /// When P is reset to I.
        reset: Reset,
        /// What P multiplies.
        apply_to: ApplyTo,
    },
    /// Closed form over the last turns of the other modalities.
    Window {
        /// The regulariser α.
        alpha: f64,
        /// K, the number of past turns in the window.
        turns: u32,
        /// What P multiplies.
        apply_to: ApplyTo,
    },
}

/// The regulariser of recursive least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alpha {
    /// The same value throughout, above 0.
    Constant(f64),
    /// 0.1^(1 + i/n): from 0.1 to 0.01 within each epoch of the modality.
    Decay,
}

/// When P is reset to I.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reset {
    /// Never.
    Never,
    /// At the start of each epoch of the job.
    Epoch,
}

/// What P multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplyTo {
    /// The gradient, before the optimizer: momentum and weight decay bypass P.
    Gradient,
    /// The step W_new − W_old.
    Update,
}

/// An optimizer with its schedule and clipping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSpec {
    /// The algorithm.
    #[serde(flatten)]
    pub rule: OptimizerRule,
    /// Learning rate, above 0.
    pub lr: f64,
    /// How the learning rate changes over the job.
    pub schedule: LearningRateSchedule,
    /// The norm to which larger gradients are scaled down; None does not clip.
    pub clip: Option<f64>,
}

/// The rule that turns a gradient into a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerRule {
    /// v ← μ v + (g + λ p); p ← p − lr v.
    Sgd {
        /// μ, 0 ≤ μ < 1.
        momentum: f64,
        /// λ.
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
    Adamw {
        /// β₁, 0 ≤ β₁ < 1.
        beta1: f64,
        /// β₂, 0 ≤ β₂ < 1.
        beta2: f64,
        /// ε.
        eps: f64,
        /// λ.
        weight_decay: f64,
    },
}

/// How a learning rate changes over the job. Progress is counted in epochs of the job, as a real number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum LearningRateSchedule {
    /// The same rate throughout, after a warm-up.
    Constant {
        /// Epochs over which the rate rises linearly from 0.
        warmup: f64,
    },
    /// Multiplied by `factor` at each of these epochs.
    Step {
        /// The epochs, in ascending order.
        at: Vec<f64>,
        /// The factor, above 0; 0.1 by default.
        factor: f64,
        /// Epochs over which the rate rises linearly from 0.
        warmup: f64,
    },
    /// Half a cosine from 1 to `floor` over the job.
    Cosine {
        /// The rate at the end of the job, as a share of the initial rate, 0 to 1.
        floor: f64,
        /// Epochs over which the rate rises linearly from 0.
        warmup: f64,
    },
}

/// The rule that fuses the modalities' logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FusionSpec {
    /// λ = softmax over modalities of minus the entropy.
    Entropy,
    /// The same weight for every modality that a sample has.
    Mean,
    /// These weights, none negative, at least one above 0; every modality is named.
    Fixed(BTreeMap<ModalityName, f64>),
    /// The weights that are most accurate on the validation split.
    Tuned,
}

/// Where and how often checkpoints are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSpec {
    /// URL or path of the store; None is the run's own folder.
    pub to: Option<String>,
    /// How often.
    pub every: Every,
    /// The number of newest checkpoints that are retained, beside the best. At least 1.
    pub keep: u32,
}

/// How often the validation split is evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationSpec {
    /// How often.
    pub every: Every,
    /// Samples per chunk of logits.
    pub chunk: u32,
}

/// A period of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Every {
    /// At the end of every n-th epoch.
    Epochs(u64),
    /// After every n-th turn.
    Turns(u64),
    /// Only at the end of the job.
    End,
}
