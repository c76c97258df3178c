//! Counts the samples of a split, one by one, for every modality and every fusion rule.

use std::collections::BTreeMap;

use super::report::{EvaluationReport, ModalityScores, RuleName};
use super::scores::{Tally, share};
use super::tuning::Tuning;
use crate::fusion::{self, FusionRule};
use crate::ids::{ModalityName, Split};
use crate::linalg::{argmax, softmax};
use crate::spec::FusionSpec;

/// Why a sample was rejected. A rejected sample is not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The logits are not one entry per modality of the job.
    #[error("logits of {given} modalities were given but the job has {needed}; give one entry per modality")]
    Modalities {
        /// The number of entries.
        given: usize,
        /// Modalities of the job.
        needed: usize,
    },
    /// The sample has no modality.
    #[error("a sample has none of the job's modalities; leave it out")]
    NoModality,
    /// A modality's logits are not one per class.
    #[error("`{modality}` gave {given} logits but the job has {needed} classes; give one logit per class")]
    Classes {
        /// The modality.
        modality: ModalityName,
        /// The number of logits.
        given: usize,
        /// C.
        needed: usize,
    },
    /// A logit is infinite or NaN.
    #[error(
        "`{modality}` gave a logit for class {class} that is infinite or NaN; its encoder has diverged: lower its learning rate or set `clip`"
    )]
    NotFinite {
        /// The modality.
        modality: ModalityName,
        /// The class.
        class: usize,
    },
    /// The label is not a class.
    #[error("label {label} is not a class; use labels from 0 to {}", classes - 1)]
    Label {
        /// The label.
        label: u32,
        /// C.
        classes: usize,
    },
}

/// Counts the samples of one split, one by one.
///
/// On the validation split it also scores a fixed grid of weights. The report holds the best of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluator {
    split: Split,
    classes: usize,
    modalities: Vec<(ModalityName, ModalityTally)>,
    rules: Vec<(RuleName, FusionRule, Tally)>,
    tuned_weights: Option<Vec<f64>>,
    tuning: Option<Tuning>,
    not_tuned: Option<String>,
    samples: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct ModalityTally {
    answers: Tally,
    loss: f64,
    entropy: f64,
    lambda: f64,
}

impl Evaluator {
    /// An evaluator that has counted nothing. `modalities` are those of the job, in its order. `fusion` is the job's
    /// rule, which is scored beside `entropy` and `mean` if it is `fixed`. `tuned` are the weights that an evaluation
    /// of the validation split found; they are ignored on the validation split. A modality without a weight has weight
    /// 0.
    #[must_use]
    pub fn new(
        split: Split,
        modalities: &[ModalityName],
        classes: usize,
        fusion: &FusionSpec,
        tuned: Option<&BTreeMap<ModalityName, f64>>,
    ) -> Self {
        let in_order = |weights: &BTreeMap<ModalityName, f64>| -> Vec<f64> {
            modalities.iter().map(|name| weights.get(name).copied().unwrap_or(0.0)).collect()
        };
        let tunes = split == Split::Validation;
        let tuning = tunes.then(|| Tuning::new(modalities.len(), classes)).transpose();
        let (tuning, not_tuned) = tuning.map_or_else(|reason| (None, Some(reason)), |tuning| (tuning, None));
        let tuned_weights = tuned.filter(|_| !tunes).map(in_order);
        let mut rules = vec![(RuleName::Entropy, FusionRule::Entropy), (RuleName::Mean, FusionRule::Mean)];
        if let FusionSpec::Fixed(weights) = fusion {
            rules.push((RuleName::Fixed, FusionRule::Weights(in_order(weights))));
        }
        rules.extend(tuned_weights.iter().map(|weights| (RuleName::Tuned, FusionRule::Weights(weights.clone()))));
        let empty = ModalityTally { answers: Tally::new(classes), loss: 0.0, entropy: 0.0, lambda: 0.0 };
        Self {
            split,
            classes,
            modalities: modalities.iter().map(|name| (name.clone(), empty.clone())).collect(),
            rules: rules.into_iter().map(|(name, rule)| (name, rule, Tally::new(classes))).collect(),
            tuned_weights,
            tuning,
            not_tuned,
            samples: 0,
        }
    }

    /// Counts one sample: its label, and its logits (`C`) of each modality of the job. None stands for a modality that
    /// the sample lacks.
    ///
    /// # Errors
    /// If no modality has logits, if logits are not one finite number per class, or if the label is not a class.
    pub fn push(&mut self, label: u32, logits: &[Option<&[f32]>]) -> Result<(), EvaluationError> {
        self.check(label, logits)?;
        self.samples += 1;
        let mut entropies = Vec::with_capacity(logits.len());
        for ((_, tally), z) in self.modalities.iter_mut().zip(logits) {
            entropies.push(z.map(|z| tally.push(label, z)));
        }
        for ((_, tally), weight) in self.modalities.iter_mut().zip(fusion::weights(&FusionRule::Entropy, &entropies)) {
            tally.lambda += weight;
        }
        for (_, rule, tally) in &mut self.rules {
            tally.push(label, &fusion::combine(&fusion::weights(rule, &entropies), logits));
        }
        if let Some(tuning) = &mut self.tuning {
            tuning.push(label, &entropies, logits);
        }
        Ok(())
    }

    /// The report on all samples that were counted.
    #[must_use]
    pub fn finish(self) -> EvaluationReport {
        let mut fused: BTreeMap<_, _> = self.rules.iter().map(|(name, _, tally)| (*name, tally.scores())).collect();
        let mut tuned_weights = self.tuned_weights;
        if let Some(tuning) = &self.tuning
            && self.samples > 0
        {
            let (weights, scores) = tuning.best();
            fused.insert(RuleName::Tuned, scores);
            tuned_weights = Some(weights);
        }
        let names = self.modalities.iter().map(|(name, _)| name.clone());
        let tuned_weights = tuned_weights.map(|weights| names.zip(weights).collect());
        let modalities =
            self.modalities.iter().map(|(name, tally)| (name.clone(), tally.scores(self.samples))).collect();
        EvaluationReport {
            split: self.split,
            samples: self.samples,
            modalities,
            fused,
            tuned_weights,
            not_tuned: self.not_tuned,
        }
    }

    fn check(&self, label: u32, logits: &[Option<&[f32]>]) -> Result<(), EvaluationError> {
        if logits.len() != self.modalities.len() {
            return Err(EvaluationError::Modalities { given: logits.len(), needed: self.modalities.len() });
        }
        if logits.iter().all(Option::is_none) {
            return Err(EvaluationError::NoModality);
        }
        for ((name, _), z) in self.modalities.iter().zip(logits) {
            let Some(z) = z else { continue };
            if z.len() != self.classes {
                return Err(EvaluationError::Classes { modality: name.clone(), given: z.len(), needed: self.classes });
            }
            if let Some(class) = z.iter().position(|z| !z.is_finite()) {
                return Err(EvaluationError::NotFinite { modality: name.clone(), class });
            }
        }
        if label as usize >= self.classes {
            return Err(EvaluationError::Label { label, classes: self.classes });
        }
        Ok(())
    }
}

impl ModalityTally {
    /// Counts one sample and returns the entropy of its prediction.
    fn push(&mut self, label: u32, logits: &[f32]) -> f64 {
        let (probabilities, log_sum) = softmax(logits);
        let entropy = fusion::entropy_of(logits, &probabilities, log_sum);
        let answer = argmax(logits);
        self.answers.push_answer(label, answer, probabilities[answer]);
        self.loss += (log_sum - f64::from(logits[label as usize])).max(0.0);
        self.entropy += entropy;
        entropy
    }

    fn scores(&self, all_samples: u64) -> ModalityScores {
        let samples = self.answers.samples();
        ModalityScores {
            samples,
            scores: self.answers.scores(),
            loss: share(self.loss, samples),
            entropy: share(self.entropy, samples),
            lambda: share(self.lambda, all_samples),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Scores;
    use super::*;
    use crate::rng;

    fn names(names: &[&str]) -> Vec<ModalityName> {
        names.iter().map(|name| ModalityName::try_from(*name).expect("a name")).collect()
    }

    type Sample = (u32, Vec<Option<Vec<f32>>>);

    /// Samples of two modalities and three classes; the first is often right, the second sometimes, and each lacks
    /// some.
    fn samples(n: usize) -> Vec<Sample> {
        let mut stream = rng::stream(11, &["samples".into()]);
        let mut logits = |label: u32, strength: f64| -> Vec<f32> {
            let noise = |stream: &mut rng::Stream| rng::normal(stream);
            (0..3).map(|c| (noise(&mut stream) + if c == label { strength } else { 0.0 }) as f32).collect()
        };
        (0..n)
            .map(|i| {
                let label = (i % 3) as u32;
                let a = (i % 5 != 0).then(|| logits(label, 2.0));
                let b = (i % 7 != 1 || a.is_none()).then(|| logits(label, 0.5));
                (label, vec![a, b])
            })
            .collect()
    }

    fn evaluate(
        split: Split,
        samples: &[Sample],
        fusion: &FusionSpec,
        tuned: Option<&BTreeMap<ModalityName, f64>>,
    ) -> EvaluationReport {
        let mut evaluator = Evaluator::new(split, &names(&["a", "b"]), 3, fusion, tuned);
        for (label, logits) in samples {
            let logits: Vec<Option<&[f32]>> = logits.iter().map(Option::as_deref).collect();
            evaluator.push(*label, &logits).expect("a good sample");
        }
        evaluator.finish()
    }

    #[test]
    fn tuned_weights_are_never_worse_than_mean_on_their_split() {
        for n in [1, 2, 5, 30, 200] {
            let report = evaluate(Split::Validation, &samples(n), &FusionSpec::Tuned, None);
            assert!(report.fused[&RuleName::Tuned].accuracy >= report.fused[&RuleName::Mean].accuracy);
        }
    }

    #[test]
    fn tuned_weights_score_the_same_when_they_are_handed_back() {
        let samples = samples(200);
        let tuned = evaluate(Split::Validation, &samples, &FusionSpec::Tuned, None);
        let again = evaluate(Split::Test, &samples, &FusionSpec::Tuned, tuned.tuned_weights.as_ref());
        assert_eq!(again.tuned_weights, tuned.tuned_weights);
        let (one, other) = (&tuned.fused[&RuleName::Tuned], &again.fused[&RuleName::Tuned]);
        assert_eq!((one.accuracy, one.macro_f1), (other.accuracy, other.macro_f1));
        assert!(one.ece.is_none() && other.ece.is_some(), "only chosen weights have probabilities");
        assert_eq!(tuned.headline(&FusionSpec::Tuned), Some(one));
    }

    #[test]
    fn the_order_of_samples_does_not_matter() {
        let mut samples = samples(100);
        let one = evaluate(Split::Validation, &samples, &FusionSpec::Entropy, None);
        rng::shuffle(&mut rng::stream(12, &[]), &mut samples);
        let other = evaluate(Split::Validation, &samples, &FusionSpec::Entropy, None);
        assert_eq!(one.tuned_weights, other.tuned_weights);
        for (name, scores) in &one.fused {
            let others = &other.fused[name];
            assert_eq!((scores.accuracy, &scores.confusion), (others.accuracy, &others.confusion));
            let gap = |scores: &Scores| scores.ece.unwrap_or(0.0);
            assert!((gap(scores) - gap(others)).abs() < 1e-12);
        }
    }

    #[test]
    fn every_figure_of_a_small_case_is_known() {
        let samples: Vec<Sample> = vec![
            (0, vec![Some(vec![2.0, 0.0, 0.0]), None]),
            (1, vec![Some(vec![1.0, 0.0, 0.0]), Some(vec![0.0, 0.0, 0.0])]),
        ];
        let fixed = FusionSpec::Fixed(names(&["a", "b"]).into_iter().zip([0.0, 1.0]).collect());
        let report = evaluate(Split::Test, &samples, &fixed, None);
        let [a, b] = names(&["a", "b"]).try_into().expect("two names");
        assert_eq!((report.samples, report.modalities[&a].samples, report.modalities[&b].samples), (2, 2, 1));
        assert_eq!((report.modalities[&a].scores.accuracy, report.modalities[&b].scores.accuracy), (0.5, 0.0));
        assert!((report.modalities[&b].loss - 3.0_f64.ln()).abs() < 1e-15);
        assert!((report.modalities[&b].entropy - 3.0_f64.ln()).abs() < 1e-15);
        let lambda = report.modalities[&a].lambda + report.modalities[&b].lambda;
        assert!((lambda - 1.0).abs() < 1e-15);
        assert_eq!(report.fused[&RuleName::Fixed].accuracy, 0.5);
        assert_eq!(report.fused.get(&RuleName::Tuned), None);
        assert_eq!(report.headline(&FusionSpec::Tuned), Some(&report.fused[&RuleName::Mean]));
    }

    #[test]
    fn a_report_survives_json_to_the_last_bit() {
        let report = evaluate(Split::Validation, &samples(40), &FusionSpec::Entropy, None);
        let json = serde_json::to_string(&report).expect("it serialises");
        assert!(json.contains(r#""fused":{"entropy":{"accuracy":"#), "{json}");
        assert_eq!(serde_json::from_str::<EvaluationReport>(&json).expect("it is one"), report);
    }

    #[test]
    fn a_bad_sample_says_what_and_counts_for_nothing() {
        let mut evaluator = Evaluator::new(Split::Test, &names(&["a", "b"]), 2, &FusionSpec::Mean, None);
        let untouched = evaluator.clone();
        let good: &[f32] = &[0.0, 1.0];
        type Case<'a> = (u32, &'a [Option<&'a [f32]>], &'a str);
        let cases: [Case<'_>; 5] = [
            (0, &[Some(good)], "logits of 1 modalities were given but the job has 2; give one entry per modality"),
            (0, &[None, None], "a sample has none of the job's modalities; leave it out"),
            (0, &[None, Some(&[0.0; 3])], "`b` gave 3 logits but the job has 2 classes; give one logit per class"),
            (
                0,
                &[Some(&[0.0, f32::NAN]), None],
                "`a` gave a logit for class 1 that is infinite or NaN; its encoder has diverged: lower its learning \
                 rate or set `clip`",
            ),
            (2, &[Some(good), None], "label 2 is not a class; use labels from 0 to 1"),
        ];
        for (label, logits, message) in cases {
            assert_eq!(evaluator.push(label, logits).expect_err(message).to_string(), message);
            assert_eq!(evaluator, untouched);
        }
    }

    #[test]
    fn an_empty_split_has_figures_of_nothing() {
        let report = evaluate(Split::Validation, &[], &FusionSpec::Entropy, None);
        assert_eq!((report.samples, report.tuned_weights), (0, None));
        assert_eq!(report.fused[&RuleName::Entropy].accuracy, 0.0);
    }
}
