//! The report of one evaluation, as it is shown, stored and sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ModalityName, Split};
use crate::spec::FusionSpec;

/// The result of the evaluation of one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// The split that was evaluated.
    pub split: Split,
    /// Samples that have at least one modality.
    pub samples: u64,
    /// Each modality alone, over the samples that have it.
    pub modalities: BTreeMap<ModalityName, ModalityScores>,
    /// All modalities fused by every rule, over all samples.
    pub fused: BTreeMap<RuleName, Scores>,
    /// The weights of `tuned`, one per modality. They were found on the validation split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned_weights: Option<BTreeMap<ModalityName, f64>>,
    /// Why no weights were tuned on a validation split, if none were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_tuned: Option<String>,
}

/// The scores of one modality alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModalityScores {
    /// The number of samples that have this modality. If it is 0, all figures are 0.
    pub samples: u64,
    /// The scores of its predictions.
    #[serde(flatten)]
    pub scores: Scores,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Mean entropy of its predictions in nats, over the samples that have it.
    pub entropy: f64,
    /// Mean weight λ under the `entropy` rule over all samples of the split; 0 where a sample lacks the modality.
    pub lambda: f64,
}

/// Accuracy, F1 and calibration of predictions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of correct predictions.
    pub accuracy: f64,
    /// Mean over classes of F1 = 2 tp / (2 tp + fp + fn); classes that neither occur nor are predicted are left out.
    pub macro_f1: f64,
    /// Expected calibration error, 15 bins of equal width over the greatest probability. None for weights that were
    /// tuned on this split, because it would need probabilities for every candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ece: Option<f64>,
    /// The cells of the confusion matrix that are not 0, by label and prediction. Empty where `ece` is None.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<ConfusionCell>,
}

/// One cell of a confusion matrix; in JSON `[label, answer, count]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, u64)", into = "(u32, u32, u64)")]
pub struct ConfusionCell {
    /// The true class, from 0.
    pub label: u32,
    /// The predicted class, from 0.
    pub answer: u32,
    /// The number of samples.
    pub count: u64,
}

impl From<(u32, u32, u64)> for ConfusionCell {
    fn from((label, answer, count): (u32, u32, u64)) -> Self {
        Self { label, answer, count }
    }
}

impl From<ConfusionCell> for (u32, u32, u64) {
    fn from(cell: ConfusionCell) -> Self {
        (cell.label, cell.answer, cell.count)
    }
}

/// A rule of fusion in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleName {
    /// Weights by the entropy of each prediction.
    Entropy,
    /// The same weight for each.
    Mean,
    /// The weights in the job file.
    Fixed,
    /// Weights tuned on the validation split.
    Tuned,
}

impl From<&FusionSpec> for RuleName {
    fn from(spec: &FusionSpec) -> Self {
        match spec {
            FusionSpec::Entropy => Self::Entropy,
            FusionSpec::Mean => Self::Mean,
            FusionSpec::Fixed(_) => Self::Fixed,
            FusionSpec::Tuned => Self::Tuned,
        }
    }
}

impl EvaluationReport {
    /// The scores by the job's fusion rule, which choose the best checkpoint. By `mean` while there are no tuned
    /// weights.
    #[must_use]
    pub fn headline(&self, fusion: &FusionSpec) -> Option<&Scores> {
        self.fused.get(&RuleName::from(fusion)).or_else(|| self.fused.get(&RuleName::Mean))
    }
}
