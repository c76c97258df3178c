//! The search for the fusion weights that are most accurate on the validation split: a fixed grid, scored sample by
//! sample. A candidate costs one answer per sample and a few numbers per class, but no probabilities.

use super::report::Scores;
use super::scores::Answers;
use crate::fusion::{self, FusionRule};
use crate::linalg::argmax;

/// The largest number of candidates beside equal weights, whatever the number of modalities.
const MOST_CANDIDATES: u64 = 231;
/// Weights are multiples of 1/20 or coarser.
const FINEST: u64 = 20;
/// The limit of candidates times classes: logits to fuse per sample, and counters to store.
const MOST_LOGITS: usize = 1 << 18;

/// Scores every candidate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tuning {
    candidates: Vec<(FusionRule, Answers)>,
    /// Fused logits of the current sample.
    fused: Vec<f64>,
}

impl Tuning {
    /// A search that has scored nothing yet.
    ///
    /// # Errors
    /// Why the search would take too much time and memory, as a message.
    pub(super) fn new(modalities: usize, classes: usize) -> Result<Self, String> {
        let grid = candidates(modalities);
        let logits = grid.len().saturating_mul(classes);
        if logits > MOST_LOGITS {
            return Err(format!(
                "fusion weights were not tuned: {} candidates by {classes} classes are {logits} logits per sample, more than \
                 {MOST_LOGITS}",
                grid.len()
            ));
        }
        let candidates =
            grid.into_iter().map(|weights| (FusionRule::Weights(weights), Answers::new(classes))).collect();
        Ok(Self { candidates, fused: vec![0.0; classes] })
    }

    /// Scores every candidate on one sample.
    pub(super) fn push(&mut self, label: u32, entropies: &[Option<f64>], logits: &[Option<&[f32]>]) {
        for (rule, answers) in &mut self.candidates {
            fusion::combine_into(&mut self.fused, &fusion::weights(rule, entropies), logits);
            answers.push(label, argmax(&self.fused));
        }
    }

    /// The most accurate weights and their scores. Of equally accurate weights, those nearest to equal weights win.
    pub(super) fn best(&self) -> (Vec<f64>, Scores) {
        let mut best = &self.candidates[0];
        for candidate in &self.candidates {
            if candidate.1.right() > best.1.right() {
                best = candidate;
            }
        }
        let weights = match &best.0 {
            FusionRule::Weights(weights) => weights.clone(),
            FusionRule::Entropy | FusionRule::Mean => Vec::new(),
        };
        (weights, best.1.scores())
    }
}

/// Equal weights first, then all multiples of 1/n that sum to 1, from the nearest to equal weights to the farthest.
fn candidates(modalities: usize) -> Vec<Vec<f64>> {
    let equal = vec![1.0 / modalities as f64; modalities];
    let steps = (1..=FINEST).rev().find(|n| compositions(*n, modalities as u64) <= MOST_CANDIDATES).unwrap_or(0);
    let mut grid = Vec::new();
    if steps > 0 {
        extend_grid(&mut grid, &mut Vec::new(), steps, modalities);
    }
    let from_equal =
        |point: &Vec<u64>| point.iter().map(|n| (n * modalities as u64).abs_diff(steps).pow(2)).sum::<u64>();
    grid.sort_by_key(|point| (from_equal(point), point.clone()));
    let weights = grid.into_iter().map(|point| point.into_iter().map(|n| n as f64 / steps as f64).collect());
    std::iter::once(equal).chain(weights).collect()
}

/// In how many ways n is a sum of m terms: (n + m − 1 choose m − 1).
fn compositions(n: u64, terms: u64) -> u64 {
    let mut ways: u64 = 1;
    for i in 1..=n {
        ways = ways.saturating_mul(terms - 1 + i) / i;
    }
    ways
}

fn extend_grid(grid: &mut Vec<Vec<u64>>, prefix: &mut Vec<u64>, left: u64, terms: usize) {
    if prefix.len() + 1 == terms {
        let mut point = prefix.clone();
        point.push(left);
        grid.push(point);
        return;
    }
    for n in 0..=left {
        prefix.push(n);
        extend_grid(grid, prefix, left - n, terms);
        prefix.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_bounded_and_every_candidate_is_a_set_of_weights() {
        for (modalities, expected) in [(1, 2), (2, 22), (3, 232), (4, 221), (5, 211), (6, 127), (200, 201), (300, 1)] {
            let candidates = candidates(modalities);
            assert_eq!(candidates.len(), expected, "{modalities} modalities");
            for weights in &candidates {
                assert_eq!(weights.len(), modalities);
                assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12 && weights.iter().all(|w| *w >= 0.0));
            }
        }
    }

    #[test]
    fn equal_weights_come_first_and_single_modalities_last() {
        let candidates = candidates(2);
        assert_eq!(candidates[0], [0.5, 0.5]);
        assert_eq!(candidates[1], [0.5, 0.5]);
        assert_eq!(candidates[2], [0.45, 0.55]);
        assert_eq!(candidates[21], [1.0, 0.0]);
    }

    #[test]
    fn among_equals_equal_weights_win() {
        let mut tuning = Tuning::new(2, 2).expect("two classes are few");
        tuning.push(0, &[Some(0.1), Some(0.1)], &[Some(&[1.0, 0.0]), Some(&[1.0, 0.0])]);
        assert_eq!(tuning.best().0, [0.5, 0.5]);
    }

    #[test]
    fn too_many_classes_are_not_tuned_for_and_the_reason_is_given() {
        assert!(Tuning::new(3, 1000).is_ok());
        let reason = Tuning::new(3, 100_000).expect_err("that is a lot");
        assert_eq!(
            reason,
            "fusion weights were not tuned: 232 candidates by 100000 classes are 23200000 logits per sample, more \
             than 262144"
        );
        assert!(Tuning::new(3, usize::MAX).is_err());
    }
}
