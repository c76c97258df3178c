//! Counting answers.

use std::collections::BTreeMap;

use super::report::{ConfusionCell, Scores};
use crate::linalg::{argmax, softmax};

const BINS: usize = 15;

/// Counts answers by class: all that accuracy and F1 need.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answers {
    classes: Vec<ClassCounts>,
    samples: u64,
    right: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct ClassCounts {
    labels: u64,
    answers: u64,
    right: u64,
}

impl Answers {
    /// Counters at 0. Their memory does not grow.
    pub(super) fn new(classes: usize) -> Self {
        Self { classes: vec![ClassCounts::default(); classes], samples: 0, right: 0 }
    }

    /// Counts this answer to a sample with this label.
    pub(super) fn push(&mut self, label: u32, answer: usize) {
        let right = u64::from(answer == label as usize);
        self.classes[label as usize].labels += 1;
        self.classes[answer].answers += 1;
        self.classes[answer].right += right;
        self.samples += 1;
        self.right += right;
    }

    pub(super) fn right(&self) -> u64 {
        self.right
    }

    /// Accuracy and F1, without calibration.
    pub(super) fn scores(&self) -> Scores {
        Scores {
            accuracy: share(self.right as f64, self.samples),
            macro_f1: self.macro_f1(),
            ece: None,
            confusion: Vec::new(),
        }
    }

    fn macro_f1(&self) -> f64 {
        let seen = self.classes.iter().filter(|class| class.labels + class.answers > 0);
        let (sum, classes) = seen.fold((0.0, 0), |(sum, classes), class| {
            (sum + 2.0 * class.right as f64 / (class.labels + class.answers) as f64, classes + 1)
        });
        share(sum, classes)
    }
}

/// Counts the answers of one modality or rule: their confidences and their confusions.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tally {
    answers: Answers,
    bins: [Bin; BINS],
    confusion: BTreeMap<(u32, u32), u64>,
}

/// The answers whose probability lies between two bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Bin {
    right: u64,
    confidence: f64,
}

impl Tally {
    /// Counters at 0.
    pub(super) fn new(classes: usize) -> Self {
        Self { answers: Answers::new(classes), bins: [Bin::default(); BINS], confusion: BTreeMap::new() }
    }

    /// Counts the answer that these logits give to a sample with this label.
    pub(super) fn push(&mut self, label: u32, logits: &[f64]) {
        let answer = argmax(logits);
        self.push_answer(label, answer, softmax(logits).0[answer]);
    }

    /// Counts this answer, given with this probability.
    pub(super) fn push_answer(&mut self, label: u32, answer: usize, confidence: f64) {
        self.answers.push(label, answer);
        let bin = &mut self.bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.right += u64::from(answer == label as usize);
        bin.confidence += confidence;
        *self.confusion.entry((label, answer as u32)).or_default() += 1;
    }

    pub(super) fn samples(&self) -> u64 {
        self.answers.samples
    }

    pub(super) fn scores(&self) -> Scores {
        let gaps = self.bins.iter().map(|bin| (bin.right as f64 - bin.confidence).abs());
        let cells = self.confusion.iter().map(|((label, answer), count)| (*label, *answer, *count));
        Scores {
            ece: Some(share(gaps.sum(), self.samples())),
            confusion: cells.map(ConfusionCell::from).collect(),
            ..self.answers.scores()
        }
    }
}

/// `sum / count`, or 0 if nothing was counted.
pub(super) fn share(sum: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (label, answer, probability)
    const ANSWERS: [(u32, usize, f64); 6] =
        [(0, 0, 0.9), (0, 1, 0.8), (1, 1, 0.95), (1, 1, 0.9), (2, 0, 0.4), (2, 2, 1.0)];

    fn tally(answers: &[(u32, usize, f64)]) -> Tally {
        let mut tally = Tally::new(4);
        for (label, answer, confidence) in answers {
            tally.push_answer(*label, *answer, *confidence);
        }
        tally
    }

    #[test]
    fn the_order_of_samples_does_not_matter() {
        let reversed: Vec<_> = ANSWERS.into_iter().rev().collect();
        let (one, other) = (tally(&ANSWERS).scores(), tally(&reversed).scores());
        assert_eq!((one.accuracy, one.macro_f1, &one.confusion), (other.accuracy, other.macro_f1, &other.confusion));
        let [one, other] = [one.ece, other.ece].map(|ece| ece.expect("answers are probabilities"));
        assert!((one - other).abs() < 1e-15);
    }

    #[test]
    fn figures_are_those_worked_out_by_hand() {
        let scores = tally(&ANSWERS).scores();
        assert!((scores.accuracy - 4.0 / 6.0).abs() < 1e-15);
        // F1: class 0 2·1/(2+2), class 1 2·2/(2+3), class 2 2·1/(2+1); class 3 neither occurs nor is answered.
        assert!((scores.macro_f1 - (0.5 + 0.8 + 2.0 / 3.0) / 3.0).abs() < 1e-15);
        // Bins: 0.4 wrong; 0.8 wrong; 0.9, 0.9 right; 0.95, 1.0 right.
        let ece = scores.ece.expect("answers are probabilities");
        assert!((ece - (0.4 + 0.8 + 0.2 + 0.05) / 6.0).abs() < 1e-15, "{ece}");
        let cells: Vec<(u32, u32, u64)> = scores.confusion.into_iter().map(Into::into).collect();
        assert_eq!(cells, [(0, 0, 1), (0, 1, 1), (1, 1, 2), (2, 0, 1), (2, 2, 1)]);
    }

    #[test]
    fn a_sure_and_right_answer_leaves_no_calibration_error() {
        assert_eq!(tally(&[(0, 0, 1.0), (1, 1, 1.0)]).scores().ece, Some(0.0));
    }

    #[test]
    fn nothing_counted_is_nothing_scored() {
        assert_eq!(Tally::new(3).scores(), Scores { ece: Some(0.0), ..Scores::default() });
        assert_eq!(Answers::new(3).scores(), Scores::default());
    }
}
