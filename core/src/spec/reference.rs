//! The reference of the job file: every field, by the mapping that it belongs to.
//!
//! The page is written from this list. A test counts the fields of the tables, so that a new field cannot be left out.

use super::field::Field;
use super::fields::{data, encoder, head, input, job, keeping, labels, modality, optimizer, schedule, transfer};

/// Fields that may change when a job is resumed from a checkpoint, as paths; `*` stands for any key. A path to a
/// mapping includes everything in it. All other fields must be unchanged, because the state in the checkpoint depends
/// on them.
pub const CHANGEABLE_ON_RESUME: &[&str] = &[
    "name",
    "schedule.epochs",
    "schedule.turns",
    "schedule.mode",
    "schedule.order",
    "schedule.lease_ttl",
    "schedule.turn_deadline",
    "checkpoints",
    "evaluation",
    "fusion",
    "modalities.*.workers",
    "modalities.*.optimizer.lr",
    "modalities.*.optimizer.schedule",
    "modalities.*.optimizer.weight_decay",
    "head.optimizer.lr",
    "head.optimizer.schedule",
    "head.optimizer.weight_decay",
];

/// One mapping of a job file, or the fields that are specific to one kind of it.
#[derive(Debug)]
pub struct SectionReference {
    /// The path of the mapping, with `*` for the name of a modality. Empty for the whole file.
    pub path: &'static str,
    /// The value that a mapping must have to have these fields, such as `kind: image`. Empty if all mappings have them.
    pub only: &'static str,
    /// The purpose of the mapping.
    pub meaning: &'static str,
    /// Its fields.
    pub fields: Vec<FieldReference>,
}

/// One field of a job file.
#[derive(Debug)]
pub struct FieldReference {
    /// The key in its mapping.
    pub key: &'static str,
    /// The allowed values, as text.
    pub range: String,
    /// The default, as a job file writes it. None if the field is required, or if the default depends on the rest of
    /// the job.
    pub default: Option<&'static str>,
    /// The unit, such as `epochs`. Empty if the field has none.
    pub unit: &'static str,
    /// An example value, as a job file writes it.
    pub example: &'static str,
    /// The purpose of the field.
    pub meaning: &'static str,
    /// Whether the field is a mapping with a separate table.
    pub is_section: bool,
}

impl From<&Field> for FieldReference {
    fn from(field: &Field) -> Self {
        Self {
            key: field.key,
            range: field.kind.to_string(),
            default: field.default,
            unit: field.unit,
            example: field.example,
            meaning: field.meaning,
            is_section: matches!(field.kind, super::field::Kind::Section),
        }
    }
}

/// Path, restriction, meaning, fields.
type Row = (&'static str, &'static str, &'static str, &'static [&'static Field]);

/// Every field of a job file, in the order in which a person would write it.
#[must_use]
pub fn reference() -> Vec<SectionReference> {
    let rows = TOP.iter().chain(DATA).chain(INPUT).chain(ENCODER).chain(TRAINING);
    rows.map(|(path, only, meaning, fields)| SectionReference {
        path,
        only,
        meaning,
        fields: fields.iter().map(|field| FieldReference::from(*field)).collect(),
    })
    .collect()
}

static TOP: &[Row] = &[
    (
        "",
        "",
        "The top level of the file. `data` and `optimizer` here are the defaults of every modality.",
        &[
            &job::NAME,
            &job::SEED,
            &job::MODALITIES,
            &job::DATA,
            &job::OPTIMIZER,
            &job::LABELS,
            &job::HEAD,
            &job::SCHEDULE,
            &job::FUSION,
            &job::CHECKPOINTS,
            &job::EVALUATION,
        ],
    ),
    (
        "modalities.*",
        "",
        "One modality, under the name that you choose for it. `data` and `optimizer` can also be given here; fields \
         that they omit are inherited from the top level.",
        &[&modality::INPUT, &modality::ENCODER, &modality::WORKERS],
    ),
    (
        "modalities.*.workers",
        "",
        "How many workers the modality may have. One worker per modality is supported today, so `min` must be 1.",
        &[&modality::MIN, &modality::MAX],
    ),
];

static DATA: &[Row] = &[
    ("data", "", "Where samples come from: at the top level for all modalities, or in one modality.", &[&data::SOURCE]),
    (
        "data",
        "source: parquet",
        "Samples from Parquet files.",
        &[&data::TRAIN, &data::VALIDATION, &data::TEST, &data::COLUMN, &data::ID],
    ),
    (
        "data",
        "source: synth",
        "A generated data set, which needs no files.",
        &[&data::KIND, &data::SAMPLES, &data::MISSING, &data::SEED],
    ),
    (
        "data.samples",
        "source: synth",
        "The size of each split of a generated data set.",
        &[&data::SAMPLES_TRAIN, &data::SAMPLES_VALIDATION, &data::SAMPLES_TEST],
    ),
];

static INPUT: &[Row] = &[
    ("modalities.*.input", "", "How a raw value of the column becomes numbers.", &[&input::KIND]),
    (
        "modalities.*.input",
        "kind: image",
        "Images, or clips of images.",
        &[&input::HEIGHT, &input::WIDTH, &input::CHANNELS, &input::FRAMES],
    ),
    (
        "modalities.*.input",
        "kind: audio",
        "Recordings, read as log-mel spectrograms.",
        &[&input::SAMPLE_RATE, &input::SECONDS, &input::MELS, &input::WINDOW, &input::HOP],
    ),
    ("modalities.*.input", "kind: text", "Text.", &[&input::TOKENIZER, &input::MAX_TOKENS]),
    ("modalities.*.input", "kind: features", "Vectors of numbers.", &[&input::STANDARDISE]),
];

static ENCODER: &[Row] = &[
    (
        "modalities.*.encoder",
        "",
        "The network of the modality. These fields exist for every kind.",
        &[&encoder::KIND, &encoder::PRECISION, &transfer::WEIGHTS, &transfer::FREEZE, &transfer::ADAPTER_LR],
    ),
    (
        "modalities.*.encoder.weights",
        "",
        "Pretrained weights. `weights: FILE` is short for `weights: {from: FILE}`.",
        &[&transfer::FROM, &transfer::SHA256, &transfer::STRICT],
    ),
    (
        "modalities.*.encoder",
        "kind: mlp",
        "A multi-layer perceptron, for features.",
        &[&encoder::HIDDEN, &encoder::DROPOUT],
    ),
    (
        "modalities.*.encoder",
        "kind: cnn",
        "A small convolutional network, for images and audio.",
        &[&encoder::CHANNELS, &encoder::DROPOUT],
    ),
    (
        "modalities.*.encoder",
        "kind: text",
        "A small transformer, for text.",
        &[&encoder::WIDTH, &encoder::LAYERS, &encoder::HEADS, &encoder::DROPOUT],
    ),
    (
        "modalities.*.encoder",
        "kind: vit",
        "A vision transformer, for images and audio.",
        &[&encoder::VIT_SIZE, &encoder::PATCH, &encoder::POOLING, &encoder::DROPOUT],
    ),
    (
        "modalities.*.encoder",
        "kind: bert",
        "A BERT encoder, for text.",
        &[&encoder::BERT_SIZE, &encoder::POOLING, &encoder::BERT_DROPOUT],
    ),
    (
        "modalities.*.encoder",
        "kind: NAME",
        "An encoder that the program has registered under this name.",
        &[&encoder::OPTIONS],
    ),
];

static TRAINING: &[Row] = &[
    (
        "labels",
        "",
        "What is predicted. `labels: 10` is short for `labels: {classes: 10}`.",
        &[&labels::COLUMN, &labels::CLASSES],
    ),
    ("head", "", "The shared head.", &[&head::WIDTH, &head::PROJECTION, &head::OPTIMIZER]),
    (
        "head.projection",
        "",
        "How the gradient of the shared head is projected. `projection: off` is short for `projection: {kind: off}`.",
        &[&head::KIND],
    ),
    ("head.projection", "kind: rls", "The projector of the paper.", &[&head::ALPHA, &head::RESET, &head::APPLY_TO]),
    (
        "head.projection",
        "kind: window",
        "A projector over the most recent turns.",
        &[&head::WINDOW_ALPHA, &head::TURNS, &head::APPLY_TO],
    ),
    (
        "optimizer",
        "",
        "An optimizer: of all encoders at the top level, of one encoder in its modality, of the shared head in `head`.",
        &[&optimizer::KIND, &optimizer::LR, &optimizer::CLIP, &optimizer::SCHEDULE],
    ),
    ("optimizer", "kind: sgd", "Stochastic gradient descent.", &[&optimizer::MOMENTUM, &optimizer::WEIGHT_DECAY]),
    (
        "optimizer",
        "kind: adamw",
        "Adam with decoupled weight decay.",
        &[&optimizer::BETA1, &optimizer::BETA2, &optimizer::EPS, &optimizer::ADAMW_WEIGHT_DECAY],
    ),
    (
        "optimizer.schedule",
        "",
        "How the learning rate changes over the job.",
        &[&optimizer::SCHEDULE_KIND, &optimizer::WARMUP],
    ),
    ("optimizer.schedule", "kind: step", "The rate drops at fixed epochs.", &[&optimizer::AT, &optimizer::FACTOR]),
    ("optimizer.schedule", "kind: cosine", "The rate falls along a half cosine.", &[&optimizer::FLOOR]),
    (
        "schedule",
        "",
        "How long the job trains, and in which order modalities take turns.",
        &[
            &schedule::EPOCHS,
            &schedule::TURNS,
            &schedule::ORDER,
            &schedule::MODE,
            &schedule::BATCH,
            &schedule::TURN_BATCHES,
            &schedule::MICRO_SHARDS,
            &schedule::LEASE_TTL,
            &schedule::TURN_DEADLINE,
        ],
    ),
    ("checkpoints", "", "Where and when checkpoints are written.", &[&keeping::TO, &keeping::EVERY, &keeping::KEEP]),
    ("evaluation", "", "When the validation split is evaluated.", &[&keeping::EVERY, &keeping::CHUNK]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The source text of the tables, in which each field is one `static`.
    const TABLES: [&str; 3] =
        [include_str!("fields/mod.rs"), include_str!("fields/samples.rs"), include_str!("fields/training.rs")];

    #[test]
    fn the_reference_has_every_field_of_the_tables() {
        let rows = TOP.iter().chain(DATA).chain(INPUT).chain(ENCODER).chain(TRAINING);
        let listed: BTreeSet<*const Field> =
            rows.flat_map(|(.., fields)| fields.iter().map(|field| std::ptr::from_ref(*field))).collect();
        let written: usize = TABLES.iter().map(|table| table.matches(": Field =").count()).sum();
        assert_eq!(
            listed.len(),
            written,
            "a field is missing in this file, or one of the tables is missing in this test"
        );
    }

    #[test]
    fn fields_that_may_change_are_fields() {
        let sections = reference();
        let is_field = |path: &str| {
            let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
            // An optimizer is described once, for all places where it occurs.
            let section = section.strip_prefix("modalities.*.").filter(|rest| *rest == "optimizer").unwrap_or(section);
            let section = section.strip_prefix("head.").filter(|rest| *rest == "optimizer").unwrap_or(section);
            let mut there = sections.iter().filter(|reference| reference.path == section);
            there.any(|reference| reference.fields.iter().any(|field| field.key == key))
        };
        for path in CHANGEABLE_ON_RESUME {
            assert!(is_field(path), "{path}");
        }
    }
}
