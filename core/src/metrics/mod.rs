//! What an evaluation reports: each modality alone, and fused by every rule.
//!
//! Owns: the accumulators and the search for tuned weights. Samples go through one at a time; memory does not grow
//! with their number (a confusion matrix is sparse and never larger than C²). Does not do: join the modalities' logits.

mod evaluator;
mod report;
mod scores;
mod tuning;

pub use evaluator::{EvaluationError, Evaluator};
pub use report::{ConfusionCell, EvaluationReport, ModalityScores, RuleName, Scores};
