//! Why a checkpoint cannot be used with the given arguments.

use antiphon_core::ids::{ModalityName, Split};

/// Why a checkpoint cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictorError {
    /// An option names a modality that the job does not have.
    #[error("{option} names `{given}`, but the checkpoint's modalities are {}{hint}", listed(.there))]
    UnknownModality {
        /// The option.
        option: &'static str,
        /// What it names.
        given: String,
        /// The modalities of the job.
        there: Vec<ModalityName>,
        /// What to try instead.
        hint: &'static str,
    },
    /// Every modality is dropped.
    #[error("--drop leaves no modality: keep at least one of {}", listed(.there))]
    NothingLeft {
        /// The modalities of the job.
        there: Vec<ModalityName>,
    },
    /// Weights that leave a modality out.
    #[error("--fusion gives no weight to `{modality}`; give every modality that is not dropped one, 0 to ignore it")]
    NoWeight {
        /// Which.
        modality: ModalityName,
    },
    /// There are no tuned weights.
    #[error(
        "`{checkpoint}` has no tuned weights, which come from an evaluation of the validation split; use --fusion \
         entropy, mean or weights of your own, or a checkpoint of a job with a validation split"
    )]
    NoTunedWeights {
        /// The checkpoint.
        checkpoint: String,
    },
    /// The job has no such split, and no data were given.
    #[error("the job has no {split} split; give files with --data, or another split with --split")]
    NoSplit {
        /// Which.
        split: Split,
    },
    /// A logit that is no number.
    #[error(
        "`{modality}` gave a logit for class {class} of sample `{id}` that is infinite or NaN; its encoder has diverged: take an earlier checkpoint"
    )]
    NotFinite {
        /// Whose.
        modality: ModalityName,
        /// The sample.
        id: String,
        /// Which class.
        class: usize,
    },
}

fn listed(names: &[ModalityName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
