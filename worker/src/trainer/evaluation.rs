//! Evaluates a split in order of ids, one chunk of logits at a time.

use std::sync::Arc;

use antiphon_core::head::Head;
use antiphon_core::ids::{EvaluationId, Split};
use antiphon_core::linalg::Matrix;
use antiphon_data::{Dataset, PrefetchOptions, Prefetcher};
use antiphon_model::encoder::Mode;

use super::error::Within as _;
use super::{Model, TrainError, Trainer};

/// Logits of consecutive samples.
#[derive(Debug)]
pub struct Chunk {
    /// The ids of the samples, in ascending byte order.
    pub ids: Vec<String>,
    /// The class of each sample.
    pub labels: Vec<u32>,
    /// Z, (ids, C). None in an empty chunk.
    pub logits: Option<Matrix<f32>>,
    /// Whether this is the last chunk of the split.
    pub last: bool,
}

/// One pass through a split under one head.
#[derive(Debug)]
pub struct Pass {
    evaluation: EvaluationId,
    head: Arc<Head<f32>>,
    left: u64,
    batches: Option<Prefetcher>,
}

impl Pass {
    /// A pass through `data` (None is an empty split) in chunks of `chunk` samples.
    #[must_use]
    pub fn new(
        evaluation: EvaluationId,
        head: impl Into<Arc<Head<f32>>>,
        data: Option<&Arc<Dataset>>,
        model: &Model,
        chunk: usize,
        prefetch: PrefetchOptions,
    ) -> Self {
        let batches = data.map(|data| {
            let preprocessor = Arc::clone(&model.preprocessor);
            Prefetcher::evaluation(Arc::clone(data), preprocessor, chunk, prefetch)
        });
        let left = data.map_or(0, |data| data.len().div_ceil(chunk.max(1)) as u64);
        Self { evaluation, head: head.into(), left, batches }
    }

    /// The next chunk. An empty last chunk if no samples are left.
    ///
    /// # Errors
    /// If a sample cannot be decoded, logits are not finite, or the device fails.
    pub fn next_chunk(&mut self, model: &Model) -> Result<Chunk, TrainError> {
        let Some(batches) = self.batches.as_mut().filter(|_| self.left > 0) else {
            return Ok(Chunk { ids: Vec::new(), labels: Vec::new(), logits: None, last: true });
        };
        let batch = batches.next().ok_or(TrainError::SplitEnded)??;
        self.left -= 1;
        let features = model.encoder.forward(&batch.input, &Mode::Evaluate)?.matrix()?;
        let logits = self.head.logits(&features);
        check_finite(&logits, &batch.ids).within(|| format!("evaluation {}", self.evaluation))?;
        Ok(Chunk { ids: batch.ids, labels: batch.labels, logits: Some(logits), last: self.left == 0 })
    }
}

/// Checks that all logits are finite. `ids` has one id per row.
fn check_finite(logits: &Matrix<f32>, ids: &[String]) -> Result<(), TrainError> {
    match logits.iter_rows().position(|row| row.iter().any(|logit| !logit.is_finite())) {
        None => Ok(()),
        Some(at) => Err(TrainError::Diverged { id: ids.get(at).cloned().unwrap_or_default() }),
    }
}

impl Trainer {
    /// Starts a pass under this head. It replaces an unfinished pass.
    pub fn begin_evaluation(&mut self, evaluation: EvaluationId, split: Split, head: Arc<Head<f32>>, chunk: usize) {
        let data = match split {
            Split::Train => Some(&self.data.train),
            Split::Validation => self.data.validation.as_ref(),
            Split::Test => self.data.test.as_ref(),
        };
        self.evaluation = Some(Pass::new(evaluation, head, data, &self.model, chunk, self.options.prefetch));
    }

    /// The next chunk of the current pass.
    ///
    /// # Errors
    /// If there is no such pass, or as [`Pass::next_chunk`].
    pub fn next_logits(&mut self, evaluation: EvaluationId) -> Result<Chunk, TrainError> {
        let pass = self.evaluation.as_mut().filter(|pass| pass.evaluation == evaluation);
        let pass = pass.ok_or(TrainError::NoEvaluation(evaluation))?;
        let chunk = pass.next_chunk(&self.model)?;
        if chunk.last {
            self.evaluation = None;
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_whose_logits_are_not_finite_is_named() {
        let ids = ["a".to_owned(), "b".to_owned()];
        for (value, good) in [(1.0, true), (f32::NAN, false), (f32::NEG_INFINITY, false)] {
            let logits = Matrix::from_vec(2, 2, vec![0.0, 1.0, 2.0, value]).expect("2 × 2");
            let message = check_finite(&logits, &ids).err().map(|error| error.to_string());
            assert_eq!(message.is_none(), good);
            assert!(message.is_none_or(|message| message.contains("`b`")));
        }
    }
}
