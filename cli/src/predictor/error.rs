//! The errors of `eval` and `predict`.

use antiphon_core::ids::{ModalityName, Split};

/// Why a checkpoint cannot be used with the given arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictorError {
    /// An option names a modality that the job does not have.
    #[error("{option} names `{given}`, but the checkpoint's modalities are {}{hint}", listed(.there))]
    UnknownModality {
        /// The option that names the modality.
        option: &'static str,
        /// The name that was given.
        given: String,
        /// The modalities of the job.
        there: Vec<ModalityName>,
        /// A hint on how to correct the option; may be empty.
        hint: &'static str,
    },
    /// `--drop` leaves no modality.
    #[error("--drop leaves no modality; leave in at least one of {}", listed(.there))]
    NothingLeft {
        /// The modalities of the job.
        there: Vec<ModalityName>,
    },
    /// The weights of `--fusion` do not name every modality.
    #[error(
        "--fusion gives no weight to `{modality}`; give every modality that is not dropped a weight, 0 to ignore it"
    )]
    NoWeight {
        /// Which.
        modality: ModalityName,
    },
    /// The checkpoint has no tuned weights.
    #[error(
        "`{checkpoint}` has no tuned weights, because weights are tuned on a validation split; use --fusion with \
         entropy, mean or your own weights, or a checkpoint of a job with a validation split"
    )]
    NoTunedWeights {
        /// URL or path of the checkpoint.
        checkpoint: String,
    },
    /// The job has no such split, and `--data` was not given.
    #[error("the job has no {split} split; name files with --data, or another split with --split")]
    NoSplit {
        /// Which.
        split: Split,
    },
    /// A logit is infinite or NaN.
    #[error(
        "the logit of `{modality}` for class {class} of sample `{id}` is infinite or NaN, because the encoder has \
         diverged; use an earlier checkpoint"
    )]
    NotFinite {
        /// Whose.
        modality: ModalityName,
        /// Id of the sample.
        id: String,
        /// Number of the class, from 0.
        class: usize,
    },
}

fn listed(names: &[ModalityName]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
