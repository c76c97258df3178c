//! What an evaluation reports: each modality alone, and all of them fused by every rule.
//!
//! Owns: the accumulators and the search for tuned weights. Samples are counted one at a time, and memory does not grow
//! with their number: a confusion matrix is sparse and has at most C² cells. It does not pair the modalities' logits;
//! [`crate::join`] does.

mod evaluator;
mod report;
mod scores;
mod tuning;

pub use evaluator::{EvaluationError, Evaluator};
pub use report::{ConfusionCell, EvaluationReport, ModalityScores, RuleName, Scores};
