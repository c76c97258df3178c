//! The worker's half of a step: everything that needs only the granted head and the batch.

use std::ops::Range;

use serde::Serialize;

use super::contribution::{Contribution, HeadGradient};
use crate::linalg::blocks::{PER_TOUCH, each, ranges, split_rows};
use crate::linalg::{Matrix, Real, all_finite, dot_once, four_dots, softmax_into, vectorised};
use crate::rng;

/// The linear head: Z = H Wᵀ + b.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Head<T> {
    pub(super) weight: Matrix<T>,
    pub(super) bias: Vec<T>,
}

/// The result of one batch on the worker.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalStep<T> {
    /// The message for the coordinator.
    pub contribution: Contribution<T>,
    /// dH = D W, `B × s`: the gradient that goes back through the encoder.
    pub feature_gradient: Matrix<T>,
}

/// D of a batch, `B × C`, until it is needed for dH.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchErrors<T>(Matrix<T>);

/// A head, or a batch, whose shapes or numbers do not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// W and b have different numbers of rows, or none.
    #[error("a head of {rows} weight rows and {biases} biases was given; it needs one of each per class")]
    Bias {
        /// Rows of W.
        rows: usize,
        /// Elements of b.
        biases: usize,
    },
    /// The encoder's width differs from the head's.
    #[error("features are {given} wide but the head is {needed} wide; build the encoder with the head's width")]
    Width {
        /// Columns of H.
        given: usize,
        /// s.
        needed: usize,
    },
    /// H and y differ in length, or are empty.
    #[error("a batch of {features} feature rows and {labels} labels was given; it needs one of each, and at least one")]
    Batch {
        /// Rows of H.
        features: usize,
        /// Elements of y.
        labels: usize,
    },
    /// A label is not a class.
    #[error("label {label} of row {row} is not a class of this head; use labels from 0 to {}", classes - 1)]
    Label {
        /// The row of the batch.
        row: usize,
        /// Its label.
        label: u32,
        /// C.
        classes: usize,
    },
    /// The encoder has diverged.
    #[error(
        "feature {column} of row {row} is infinite or NaN; the encoder has diverged: \
         lower its learning rate or set `clip`"
    )]
    Features {
        /// The row of the batch.
        row: usize,
        /// The column of H.
        column: usize,
    },
    /// The head has diverged.
    #[error("the head's logits of row {row} are not finite; the training has diverged: lower the learning rates")]
    Logits {
        /// The row of the batch.
        row: usize,
    },
}

impl<T: Real> Head<T> {
    /// A head of W (`C × s`) and b (`C`).
    ///
    /// # Errors
    /// If there are not as many biases as rows of W, or none.
    pub fn new(weight: Matrix<T>, bias: Vec<T>) -> Result<Self, HeadError> {
        if weight.rows() == bias.len() && !bias.is_empty() {
            Ok(Self { weight, bias })
        } else {
            Err(HeadError::Bias { rows: weight.rows(), biases: bias.len() })
        }
    }

    /// The initial head of a job with this seed: W normal with standard deviation s^(−1/2), b = 0.
    ///
    /// # Panics
    /// If there are no classes.
    #[must_use]
    pub fn initial(seed: u64, classes: usize, width: usize) -> Self {
        assert!(classes > 0, "a head needs at least one class");
        let mut stream = rng::stream(seed, &["init".into(), "head".into()]);
        let deviation = (width as f64).sqrt().recip();
        let mut weight = Matrix::zeros(classes, width);
        for value in weight.as_mut_slice() {
            *value = T::from_f64(deviation * rng::normal(&mut stream));
        }
        Self { weight, bias: vec![T::ZERO; classes] }
    }

    /// A head as large as this one.
    pub(super) fn blank(&self) -> Self {
        Self { weight: Matrix::zeros(self.classes(), self.width()), bias: vec![T::ZERO; self.classes()] }
    }

    /// W, `C × s`.
    #[must_use]
    pub fn weight(&self) -> &Matrix<T> {
        &self.weight
    }

    /// b, `C`.
    #[must_use]
    pub fn bias(&self) -> &[T] {
        &self.bias
    }

    /// C.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.weight.rows()
    }

    /// s.
    #[must_use]
    pub fn width(&self) -> usize {
        self.weight.cols()
    }

    /// (W, b).
    #[must_use]
    pub fn into_inner(self) -> (Matrix<T>, Vec<T>) {
        (self.weight, self.bias)
    }

    /// Z = H Wᵀ + b (`B × C`) for evaluation: the bits of each row depend on that row alone, not on the rest of the
    /// batch.
    ///
    /// # Panics
    /// If the features (`B × s`) are not as wide as the head.
    #[must_use]
    pub fn logits(&self, features: &Matrix<T>) -> Matrix<T> {
        assert_eq!(features.cols(), self.width(), "features as wide as the head");
        let classes = self.classes();
        let mut logits = Matrix::zeros(features.rows(), classes);
        let rows = ranges(features.rows(), 1);
        let blocks = rows.iter().cloned().zip(split_rows(logits.as_mut_slice(), classes, &rows)).collect();
        each(
            blocks,
            features.rows() * self.weight.as_slice().len() / PER_TOUCH,
            |(rows, logits): (Range<usize>, &mut [T])| {
                for (sample, logits) in rows.zip(logits.chunks_exact_mut(classes)) {
                    self.logits_of(features.row(sample), logits);
                }
            },
        );
        logits
    }

    /// Z of one sample.
    fn logits_of(&self, sample: &[T], logits: &mut [T]) {
        const AT_ONCE: usize = 4;
        vectorised(
            #[inline(always)]
            || {
                let (fours, rest) = logits.as_chunks_mut::<AT_ONCE>();
                for (i, four) in fours.iter_mut().enumerate() {
                    *four = four_dots(std::array::from_fn(|j| self.weight.row(i * AT_ONCE + j)), sample);
                }
                let done = fours.len() * AT_ONCE;
                for (i, one) in rest.iter_mut().enumerate() {
                    *one = dot_once(self.weight.row(done + i), sample);
                }
                logits.iter_mut().zip(&self.bias).for_each(|(z, bias)| *z = *z + *bias);
            },
        );
    }

    /// One step's work on the worker, for H (`B × s`) and y (`B`): [`Self::contribution`] and
    /// [`Self::feature_gradient`].
    ///
    /// # Errors
    /// As [`Self::contribution`].
    pub fn local_step(&self, features: Matrix<T>, labels: &[u32]) -> Result<LocalStep<T>, HeadError> {
        let (contribution, errors) = self.contribution(features, labels)?;
        Ok(LocalStep { contribution, feature_gradient: self.feature_gradient(&errors) })
    }

    /// What a batch contributes, for H (`B × s`) and y (`B`), and what [`Self::feature_gradient`] needs after the
    /// contribution was sent.
    ///
    /// Z = H Wᵀ + b; L = mean cross-entropy; D = (softmax(Z) − onehot(y)) / B; G = Dᵀ H. The contribution holds G where
    /// [it is no larger](Self::sends_gradient) than D and H together, and D and H otherwise.
    ///
    /// # Errors
    /// If the shapes do not fit the head, a label is not a class, or a feature or logit is not finite.
    pub fn contribution(
        &self,
        features: Matrix<T>,
        labels: &[u32],
    ) -> Result<(Contribution<T>, BatchErrors<T>), HeadError> {
        self.check_batch(&features, labels)?;
        let mut errors = features.times_transposed(&self.weight);
        let scored = self.turn_logits_into_errors(&mut errors, labels)?;
        let batch = features.rows();
        let bias_gradient = errors.column_sums().into_iter().map(T::from_f64).collect();
        let mean_features = features.column_sums().into_iter().map(|sum| T::from_f64(sum / batch as f64)).collect();
        let gradient = if self.sends_gradient(batch) {
            HeadGradient::Dense(errors.transposed_times(&features))
        } else {
            HeadGradient::Factors { errors: errors.clone(), features }
        };
        let contribution = Contribution {
            gradient,
            bias_gradient,
            mean_features,
            loss: scored.loss,
            correct: scored.correct,
            samples: scored.samples,
        };
        Ok((contribution, BatchErrors(errors)))
    }

    /// dH = D W, `B × s`: the gradient that goes back through the encoder.
    ///
    /// # Panics
    /// If D belongs to a head with another number of classes.
    #[must_use]
    pub fn feature_gradient(&self, errors: &BatchErrors<T>) -> Matrix<T> {
        errors.0.times(&self.weight)
    }

    /// Whether H of this shape, `(B, s)`, and y (`B`) form a batch for this head. The features themselves are not
    /// checked.
    ///
    /// # Errors
    /// If the shapes do not fit the head, or a label is not a class.
    pub fn check_shapes(&self, (rows, width): (usize, usize), labels: &[u32]) -> Result<(), HeadError> {
        if width != self.width() {
            return Err(HeadError::Width { given: width, needed: self.width() });
        }
        if rows != labels.len() || labels.is_empty() {
            return Err(HeadError::Batch { features: rows, labels: labels.len() });
        }
        let classes = self.classes();
        match labels.iter().position(|label| *label as usize >= classes) {
            Some(row) => Err(HeadError::Label { row, label: labels[row], classes }),
            None => Ok(()),
        }
    }

    /// Whether a batch of this many samples contributes G rather than D and H. It does where G is no larger: `C s ≤ B
    /// (C + s)`.
    #[must_use]
    pub fn sends_gradient(&self, samples: usize) -> bool {
        let (classes, width) = (self.classes(), self.width());
        classes * width <= samples * (classes + width)
    }

    fn check_batch(&self, features: &Matrix<T>, labels: &[u32]) -> Result<(), HeadError> {
        self.check_shapes((features.rows(), features.cols()), labels)?;
        match features.first_not_finite() {
            Some(at) => Err(HeadError::Features { row: at / self.width(), column: at % self.width() }),
            None => Ok(()),
        }
    }

    /// Replaces H Wᵀ by D, in place.
    fn turn_logits_into_errors(&self, logits: &mut Matrix<T>, labels: &[u32]) -> Result<Scored, HeadError> {
        let (classes, batch) = (self.classes(), labels.len());
        let rows = ranges(batch, (LOGITS / classes).max(1));
        let blocks = rows.iter().cloned().zip(split_rows(logits.as_mut_slice(), classes, &rows)).collect();
        // An exponential costs about as much as thirty other operations.
        let scores = each(blocks, batch * classes * 32, |(rows, logits): (Range<usize>, &mut [T])| {
            let mut probabilities = vec![0.0; classes];
            let rows = logits.chunks_exact_mut(classes).zip(rows);
            let score = |(logits, row)| self.score(logits, labels[row] as usize, batch as f64, &mut probabilities);
            rows.map(score).collect::<Vec<_>>()
        });
        let mut scored = Scored { loss: 0.0, correct: 0, samples: 0 };
        for (row, score) in scores.into_iter().flatten().enumerate() {
            let Some((loss, correct)) = score else {
                return Err(HeadError::Logits { row });
            };
            scored.loss += loss / batch as f64;
            scored.correct += u32::from(correct);
            scored.samples += 1;
        }
        Ok(scored)
    }

    /// Replaces one sample's row of H Wᵀ by its row of D. Returns its cross-entropy and whether its greatest logit is
    /// its label's, or None if a logit is not finite.
    fn score(&self, values: &mut [T], label: usize, batch: f64, probabilities: &mut [f64]) -> Option<(f64, bool)> {
        vectorised(
            #[inline(always)]
            || values.iter_mut().zip(&self.bias).for_each(|(z, bias)| *z = *z + *bias),
        );
        if !all_finite(values) {
            return None;
        }
        let (max, log_sum) = softmax_into(values, probabilities);
        let loss = (log_sum - values[label].to_f64()).max(0.0);
        let greatest = values.iter().position(|z| z.to_f64() == max);
        probabilities[label] -= 1.0;
        vectorised(
            #[inline(always)]
            || values.iter_mut().zip(probabilities).for_each(|(error, p)| *error = T::from_f64(*p / batch)),
        );
        Some((loss, greatest == Some(label)))
    }
}

/// Logits that a thread processes at a time, in whole rows.
const LOGITS: usize = 1 << 10;

struct Scored {
    loss: f64,
    correct: u32,
    samples: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(rows: usize, cols: usize, phase: f64) -> Matrix<f64> {
        let data = (0..rows * cols).map(|i| (i as f64 * 0.7 + phase).sin()).collect();
        Matrix::from_vec(rows, cols, data).expect("rows · cols elements")
    }

    fn dense(contribution: &Contribution<f64>) -> Matrix<f64> {
        contribution.dense()
    }

    fn loss(head: &Head<f64>, features: &Matrix<f64>, labels: &[u32]) -> f64 {
        head.local_step(features.clone(), labels).expect("a good batch").contribution.loss
    }

    #[test]
    fn gradients_are_the_slopes_of_the_loss() {
        let head = Head::<f64>::initial(1, 3, 5);
        let (features, labels) = (example(4, 5, 0.2), [0, 2, 1, 2]);
        let step = head.local_step(features.clone(), &labels).expect("a good batch");
        let gradient = dense(&step.contribution);
        let tiny = 1e-6;
        for i in 0..15 {
            let moved = |by: f64| {
                let mut head = head.clone();
                head.weight.as_mut_slice()[i] += by;
                loss(&head, &features, &labels)
            };
            assert!(((moved(tiny) - moved(-tiny)) / (2.0 * tiny) - gradient.as_slice()[i]).abs() < 1e-8);
        }
        for i in 0..20 {
            let moved = |by: f64| {
                let mut features = features.clone();
                features.as_mut_slice()[i] += by;
                loss(&head, &features, &labels)
            };
            let slope = (moved(tiny) - moved(-tiny)) / (2.0 * tiny);
            assert!((slope - step.feature_gradient.as_slice()[i]).abs() < 1e-8);
        }
        for i in 0..3 {
            let moved = |by: f64| {
                let mut head = head.clone();
                head.bias[i] += by;
                loss(&head, &features, &labels)
            };
            let slope = (moved(tiny) - moved(-tiny)) / (2.0 * tiny);
            assert!((slope - step.contribution.bias_gradient[i]).abs() < 1e-8);
        }
    }

    #[test]
    fn the_order_of_a_batch_does_not_matter() {
        let head = Head::<f64>::initial(2, 3, 4);
        let features = example(6, 4, 0.9);
        let labels = [0, 1, 2, 2, 1, 0];
        let reversed: Vec<f64> = (0..6).rev().flat_map(|i| features.row(i).to_vec()).collect();
        let one = head.local_step(features, &labels).expect("a good batch").contribution;
        let reversed = Matrix::from_vec(6, 4, reversed).expect("six rows");
        let labels: Vec<u32> = labels.into_iter().rev().collect();
        let other = head.local_step(reversed, &labels).expect("a good batch").contribution;
        for (a, b) in dense(&one).as_slice().iter().zip(dense(&other).as_slice()) {
            assert!((a - b).abs() < 1e-14);
        }
        assert_eq!((one.correct, one.samples), (other.correct, other.samples));
        assert!((one.loss - other.loss).abs() < 1e-14);
    }

    #[test]
    fn errors_of_each_sample_sum_to_nothing() {
        let head = Head::<f64>::initial(3, 5, 4);
        let step = head.local_step(example(3, 4, 0.1), &[4, 0, 2]).expect("a good batch");
        assert!(step.contribution.bias_gradient.iter().sum::<f64>().abs() < 1e-15);
    }

    #[test]
    fn the_smaller_form_is_sent_and_both_mean_the_same() {
        let wide = Head::<f64>::initial(4, 30, 40);
        let few = wide.local_step(example(2, 40, 0.3), &[7, 29]).expect("a good batch").contribution;
        assert!(matches!(few.gradient, HeadGradient::Factors { .. }));
        let many = wide.local_step(example(30, 40, 0.3), &[7; 30]).expect("a good batch").contribution;
        assert!(matches!(many.gradient, HeadGradient::Dense(_)));
        assert_eq!(few.check(30, 40), Ok(()));
        assert_eq!(many.check(30, 40), Ok(()));
    }

    #[test]
    fn logits_for_evaluation_have_the_same_bits_in_any_batch() {
        let head = Head::<f32>::initial(5, 7, 19);
        let features = example(9, 19, 0.6).map(|v| v as f32);
        let together = head.logits(&features);
        for (i, row) in features.iter_rows().enumerate() {
            let alone = Matrix::from_vec(1, 19, row.to_vec()).expect("one row");
            assert_eq!(head.logits(&alone).as_slice(), together.row(i));
        }
    }

    #[test]
    fn a_new_head_depends_on_the_seed_and_is_scaled_by_its_width() {
        let head = Head::<f64>::initial(7, 10, 400);
        assert_eq!(head, Head::initial(7, 10, 400));
        assert_ne!(head, Head::initial(8, 10, 400));
        let deviation = head.weight().norm() / (4000.0_f64).sqrt();
        assert!((deviation - 0.05).abs() < 0.003, "{deviation}");
        assert_eq!(head.bias(), [0.0; 10]);
    }

    #[test]
    fn a_bad_batch_says_what_and_where() {
        let head = Head::<f32>::initial(7, 3, 2);
        let features = |values: Vec<f32>| Matrix::from_vec(values.len() / 2, 2, values).expect("rows of two");
        let message = |features, labels: &[u32]| head.local_step(features, labels).expect_err("bad").to_string();
        assert_eq!(
            message(Matrix::zeros(1, 4), &[0]),
            "features are 4 wide but the head is 2 wide; build the encoder with the head's width"
        );
        assert_eq!(
            message(Matrix::zeros(2, 2), &[0]),
            "a batch of 2 feature rows and 1 labels was given; it needs one of each, and at least one"
        );
        assert_eq!(
            message(Matrix::zeros(2, 2), &[0, 3]),
            "label 3 of row 1 is not a class of this head; use labels from 0 to 2"
        );
        assert_eq!(
            message(features(vec![0.0, 0.0, 1.0, f32::NAN]), &[0, 0]),
            "feature 1 of row 1 is infinite or NaN; the encoder has diverged: lower its learning rate or set `clip`"
        );
        assert!(message(features(vec![f32::MAX, f32::MAX]), &[0]).contains("logits of row 0"));
    }
}
