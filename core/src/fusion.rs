//! How the modalities' logits for one sample become one answer.
//!
//! Invariant: everything here looks at one sample alone, so no answer depends on the other samples of its batch. A
//! modality that a sample lacks has weight 0 and the others' weights sum to 1.

use crate::linalg::{Real, softmax};

/// A rule that gives each modality of a sample its weight.
#[derive(Debug, Clone, PartialEq)]
pub enum FusionRule {
    /// λ_m = softmax over m of −e_m, with e_m the entropy of the modality's prediction.
    Entropy,
    /// The same weight for every modality that the sample has.
    Mean,
    /// These weights, one per modality in the order of the job, none negative.
    Weights(Vec<f64>),
}

/// The answer for one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused {
    /// e_m in nats; None for a modality that the sample lacks.
    pub entropies: Vec<Option<f64>>,
    /// λ_m, one per modality; 0 for those that the sample lacks.
    pub weights: Vec<f64>,
    /// Σ λ_m Z_m, `C`.
    pub logits: Vec<f64>,
}

/// e = −Σ p log p of p = softmax(z), in nats: 0 if the prediction is certain, ln C if every class is equally likely.
#[must_use]
pub fn entropy<T: Real>(logits: &[T]) -> f64 {
    let (probabilities, log_sum) = softmax(logits);
    entropy_of(logits, &probabilities, log_sum)
}

/// The same, from a softmax that was computed already.
pub(crate) fn entropy_of<T: Real>(logits: &[T], probabilities: &[f64], log_sum: f64) -> f64 {
    let terms = probabilities.iter().zip(logits).filter(|(p, _)| **p > 0.0);
    terms.map(|(p, z)| p * (log_sum - z.to_f64())).sum::<f64>().max(0.0)
}

/// The weights λ_m of one sample's modalities, from their entropies; None is a modality that the sample lacks and has
/// weight 0. The weights sum to 1 unless the sample has no modality at all. Where fixed weights are 0 for all
/// modalities that the sample has, these modalities get equal weights.
///
/// # Panics
/// If fixed weights are not one per modality.
#[must_use]
pub fn weights(rule: &FusionRule, entropies: &[Option<f64>]) -> Vec<f64> {
    let raw: Vec<f64> = match rule {
        FusionRule::Entropy => {
            let least = entropies.iter().flatten().copied().fold(f64::INFINITY, f64::min);
            entropies.iter().map(|e| e.map_or(0.0, |e| (least - e).exp())).collect()
        }
        FusionRule::Mean => present(entropies),
        FusionRule::Weights(fixed) => {
            assert_eq!(fixed.len(), entropies.len(), "fixed fusion weights are one per modality");
            fixed.iter().zip(entropies).map(|(w, e)| if e.is_some() { *w } else { 0.0 }).collect()
        }
    };
    normalised(raw).or_else(|| normalised(present(entropies))).unwrap_or_else(|| vec![0.0; entropies.len()])
}

fn present(entropies: &[Option<f64>]) -> Vec<f64> {
    entropies.iter().map(|e| f64::from(u8::from(e.is_some()))).collect()
}

fn normalised(weights: Vec<f64>) -> Option<Vec<f64>> {
    let sum: f64 = weights.iter().sum();
    (sum > 0.0).then(|| weights.into_iter().map(|w| w / sum).collect())
}

/// Σ λ_m Z_m (`C`) with these weights; modalities that the sample lacks are left out.
///
/// # Panics
/// If weights and logits are not one per modality, or logits differ in length.
#[must_use]
pub fn combine<T: Real>(weights: &[f64], logits: &[Option<&[T]>]) -> Vec<f64> {
    assert_eq!(weights.len(), logits.len(), "fusion weights are one per modality");
    let classes = logits.iter().flatten().map(|z| z.len()).next().unwrap_or(0);
    let mut fused = vec![0.0; classes];
    combine_into(&mut fused, weights, logits);
    fused
}

/// The same, written to `fused` (`C`).
pub(crate) fn combine_into<T: Real>(fused: &mut [f64], weights: &[f64], logits: &[Option<&[T]>]) {
    fused.fill(0.0);
    for (weight, z) in weights.iter().zip(logits).filter_map(|(w, z)| z.map(|z| (*w, z))) {
        assert_eq!(z.len(), fused.len(), "every modality has one logit per class");
        for (sum, z) in fused.iter_mut().zip(z) {
            *sum += weight * z.to_f64();
        }
    }
}

/// The answer for one sample, from the logits (`C` each) of the modalities that it has, in the order of the job.
///
/// # Panics
/// If fixed weights are not one per modality, or logits differ in length.
#[must_use]
pub fn fuse<T: Real>(rule: &FusionRule, logits: &[Option<&[T]>]) -> Fused {
    let entropies: Vec<Option<f64>> = logits.iter().map(|z| z.map(entropy)).collect();
    let weights = weights(rule, &entropies);
    let logits = combine(&weights, logits);
    Fused { entropies, weights, logits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::argmax;

    const RULES: [fn() -> FusionRule; 3] =
        [|| FusionRule::Entropy, || FusionRule::Mean, || FusionRule::Weights(vec![0.5, 2.0, 1.0])];

    fn sample() -> [Vec<f64>; 3] {
        [vec![2.0, 0.0, -1.0], vec![0.1, 0.3, 0.2], vec![-1.0, 4.0, 0.5]]
    }

    #[test]
    fn weights_sum_to_one_and_a_missing_modality_has_none() {
        let sample = sample();
        for rule in RULES {
            for mask in 1..8_u32 {
                let logits: Vec<Option<&[f64]>> =
                    (0..3).map(|m| (mask >> m & 1 == 1).then_some(sample[m].as_slice())).collect();
                let fused = fuse(&rule(), &logits);
                assert!((fused.weights.iter().sum::<f64>() - 1.0).abs() < 1e-15);
                for (weight, z) in fused.weights.iter().zip(&logits) {
                    assert_eq!(*weight == 0.0, z.is_none());
                }
            }
        }
    }

    #[test]
    fn a_missing_modality_is_as_good_as_none_in_the_job() {
        let [a, _, c] = sample();
        for rule in [FusionRule::Entropy, FusionRule::Mean] {
            let lacking = fuse(&rule, &[Some(a.as_slice()), None, Some(&c)]);
            let without = fuse(&rule, &[Some(a.as_slice()), Some(&c)]);
            assert_eq!(lacking.logits, without.logits);
        }
    }

    #[test]
    fn the_order_of_modalities_does_not_matter() {
        let [a, b, c] = sample();
        let one = fuse(&FusionRule::Entropy, &[Some(a.as_slice()), Some(&b), Some(&c)]);
        let other = fuse(&FusionRule::Entropy, &[Some(c.as_slice()), Some(&a), Some(&b)]);
        for (x, y) in one.logits.iter().zip(&other.logits) {
            assert!((x - y).abs() < 1e-15);
        }
    }

    #[test]
    fn one_modality_alone_keeps_its_logits() {
        let [a, ..] = sample();
        for rule in RULES {
            assert_eq!(fuse(&rule(), &[Some(a.as_slice()), None, None]).logits, a);
        }
    }

    #[test]
    fn a_shift_of_a_modality_changes_neither_entropy_nor_weights() {
        let [a, b, c] = sample();
        let shifted: Vec<f64> = a.iter().map(|z| z + 64.0).collect();
        let one = fuse(&FusionRule::Entropy, &[Some(a.as_slice()), Some(&b), Some(&c)]);
        let other = fuse(&FusionRule::Entropy, &[Some(shifted.as_slice()), Some(&b), Some(&c)]);
        for (x, y) in one.weights.iter().zip(&other.weights) {
            assert!((x - y).abs() < 1e-13);
        }
    }

    #[test]
    fn the_surer_modality_weighs_more() {
        let (sure, unsure) = ([0.0_f32, 9.0], [0.3_f32, 0.0]);
        let fused = fuse(&FusionRule::Entropy, &[Some(sure.as_slice()), Some(&unsure)]);
        assert!(fused.weights[0] > fused.weights[1]);
        assert_eq!(argmax(&fused.logits), 1);
    }

    #[test]
    fn entropies_run_from_certainty_to_no_idea() {
        assert!((entropy(&[0.7_f64; 5]) - 5.0_f64.ln()).abs() < 1e-15);
        assert!(entropy(&[80.0_f32, -80.0, -80.0]) < 1e-60);
        assert_eq!(entropy(&[f32::MAX, f32::MIN]), 0.0);
        assert_eq!(entropy(&[1.0_f32]), 0.0);
    }

    #[test]
    fn where_the_present_have_no_fixed_weight_they_count_the_same() {
        let rule = FusionRule::Weights(vec![1.0, 0.0, 0.0]);
        assert_eq!(weights(&rule, &[None, Some(0.1), Some(0.9)]), [0.0, 0.5, 0.5]);
        assert_eq!(weights(&rule, &[None, None, None]), [0.0; 3]);
    }
}
