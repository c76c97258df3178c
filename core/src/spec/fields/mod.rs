//! Every field of a job file, in one table per mapping.

mod samples;
mod training;

use super::field::{Field, Kind};

pub(super) use samples::{data, encoder, input, modality, transfer};
pub(super) use training::{head, keeping, labels, optimizer, schedule};

/// The largest size in rows, columns or tokens.
const SIZE: u64 = 65_536;
const PLENTY: u64 = u32::MAX as u64;

/// The key that a bare value abbreviates: `encoder: cnn` is `encoder: {kind: cnn}`.
pub(super) fn short_key(path: &str) -> Option<&'static str> {
    if path == "schedule" {
        return None;
    }
    match path.rsplit('.').next().unwrap_or_default() {
        "encoder" | "input" | "optimizer" | "schedule" | "projection" => Some("kind"),
        "labels" => Some("classes"),
        "weights" if path.ends_with(".encoder.weights") => Some("from"),
        _ => None,
    }
}

/// Keys of one mapping that exclude each other. An override of one replaces the other.
pub(super) const EXCLUSIVE: [(&str, &str); 1] = [("schedule.epochs", "schedule.turns")];

/// The whole file.
pub(in crate::spec) mod job {
    use super::*;

    pub(in crate::spec) static NAME: Field = Field::new(
        "name",
        Kind::Name,
        "spoken-digits",
        "the name of the job, for display; ids of submitted jobs begin with it",
    );
    pub(in crate::spec) static SEED: Field =
        Field::new("seed", Kind::Whole(0, u64::MAX), "7", "the seed from which every random number of the job follows")
            .default("0");
    pub(in crate::spec) static MODALITIES: Field = Field::new(
        "modalities",
        Kind::Other("a mapping from the name of each modality to its fields, or a list of names"),
        "{audio: {}, image: {}}",
        "the modalities of the job; with `order: cyclic` they take turns in the order given here",
    );
    pub(in crate::spec) static DATA: Field =
        Field::new("data", Kind::Section, "{train: train.parquet}", "where the samples come from");
    pub(in crate::spec) static OPTIMIZER: Field = Field::new(
        "optimizer",
        Kind::Section,
        "{kind: sgd, lr: 0.05}",
        "the optimizer of the encoders, unless a modality sets its own",
    );
    pub(in crate::spec) static LABELS: Field =
        Field::new("labels", Kind::Section, "{column: label, classes: 10}", "the class that is predicted");
    pub(in crate::spec) static HEAD: Field =
        Field::new("head", Kind::Section, "{width: 128}", "the classifier that all modalities share");
    pub(in crate::spec) static SCHEDULE: Field = Field::new(
        "schedule",
        Kind::Section,
        "{epochs: 15}",
        "how long the job trains, and in which order modalities take turns",
    );
    pub(in crate::spec) static FUSION: Field = Field::new(
        "fusion",
        Kind::Other("`entropy`, `mean`, `tuned` or a weight for each modality, such as {audio: 0.7, image: 0.3}"),
        "entropy",
        "the rule that combines the modalities' predictions and selects the best checkpoint; evaluations report every \
         rule",
    )
    .default("entropy");
    pub(in crate::spec) static CHECKPOINTS: Field =
        Field::new("checkpoints", Kind::Section, "{every: 1 epoch}", "where and how often checkpoints are written");
    pub(in crate::spec) static EVALUATION: Field = Field::new(
        "evaluation",
        Kind::Section,
        "{every: 1 epoch}",
        "how often the job is evaluated on the validation split",
    );
}
