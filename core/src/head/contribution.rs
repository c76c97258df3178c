//! What one batch contributes to the shared head, and its validation.

use crate::ids::ModalityName;
use crate::linalg::{Matrix, Real, sum_of_squares_in_kind};

/// The gradient of the mean cross-entropy with respect to W, in one of two forms.
#[derive(Debug, Clone, PartialEq)]
pub enum HeadGradient<T> {
    /// G = Dᵀ H, `C × s`.
    Dense(Matrix<T>),
    /// D and H, whose product is G. They are smaller than G where `B (C + s) < C s`.
    Factors {
        /// D = (softmax(Z) − onehot(y)) / B, `B × C`.
        errors: Matrix<T>,
        /// H, `B × s`.
        features: Matrix<T>,
    },
}

/// What one batch of one modality contributes to the shared head.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution<T> {
    /// The gradient with respect to W.
    pub gradient: HeadGradient<T>,
    /// The gradient with respect to b: the sum of the rows of D, `C`.
    pub bias_gradient: Vec<T>,
    /// h̄, the mean of the rows of H, `s`.
    pub mean_features: Vec<T>,
    /// Mean cross-entropy of the batch, in nats.
    pub loss: f64,
    /// The number of samples of the batch that are classified correctly.
    pub correct: u32,
    /// B, the number of samples of the batch.
    pub samples: u32,
}

/// Why a contribution was rejected. A rejected contribution changes nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ContributionError {
    /// A tensor does not have the shape that the head requires.
    #[error(
        "`{tensor}` has shape {given:?} but the head needs {needed:?}; use the head's width and classes of this job"
    )]
    Shape {
        /// The tensor.
        tensor: &'static str,
        /// Its shape.
        given: Vec<usize>,
        /// The shape it should have.
        needed: Vec<usize>,
    },
    /// A tensor holds an infinity or NaN.
    #[error(
        "`{tensor}` holds {value} at element {position}; the encoder has diverged: lower its learning rate or set `clip`"
    )]
    NotFinite {
        /// The tensor.
        tensor: &'static str,
        /// The first such element, in row-major order.
        position: usize,
        /// The element.
        value: f64,
    },
    /// The loss cannot be a mean cross-entropy.
    #[error(
        "loss is {value}, but a mean cross-entropy is finite and not negative; the encoder has diverged: lower its learning rate or set `clip`"
    )]
    Loss {
        /// The loss.
        value: f64,
    },
    /// The counts contradict each other.
    #[error(
        "{correct} of {samples} samples are reported as correct; send at least 1 sample, and report at most all as \
         correct"
    )]
    Counts {
        /// Samples reported as correct.
        correct: u32,
        /// Samples reported in the batch.
        samples: u32,
    },
    /// The numbers are finite but too large to compute with.
    #[error("`{tensor}` is too large: its squared norm overflows; lower the encoder's learning rate or set `clip`")]
    TooLarge {
        /// The tensor.
        tensor: &'static str,
    },
    /// The step would have made the head infinite or NaN.
    #[error("the step would make the head's {tensor} infinite or NaN; lower the head's learning rate or set `clip`")]
    Diverged {
        /// The tensor.
        tensor: &'static str,
    },
    /// A turn of another modality is open.
    #[error("a contribution of `{given}` came within a turn of `{open}`; end the turn of `{open}` first")]
    OtherTurn {
        /// The modality that has the turn.
        open: ModalityName,
        /// The modality of the contribution.
        given: ModalityName,
    },
}

/// A contribution that has passed its [check](Contribution::check) for a head of this shape.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedContribution<T> {
    contribution: Contribution<T>,
    shape: (usize, usize),
}

impl<T> CheckedContribution<T> {
    /// C and s of the heads that it fits.
    pub(super) fn shape(&self) -> (usize, usize) {
        self.shape
    }
}

impl<T> std::ops::Deref for CheckedContribution<T> {
    type Target = Contribution<T>;
    fn deref(&self) -> &Contribution<T> {
        &self.contribution
    }
}

impl<T: Real> Contribution<T> {
    /// The contribution, once it has passed its check.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn into_checked(self, classes: usize, width: usize) -> Result<CheckedContribution<T>, ContributionError> {
        self.check(classes, width)?;
        Ok(CheckedContribution { contribution: self, shape: (classes, width) })
    }

    /// Checks all that can be checked of a contribution to a head of C = `classes` and s = `width` without applying it.
    ///
    /// # Errors
    /// If a shape is not the head's, if a number is infinite or NaN or its square overflows, or if the counts
    /// contradict each other.
    pub fn check(&self, classes: usize, width: usize) -> Result<(), ContributionError> {
        if self.samples == 0 || self.correct > self.samples {
            return Err(ContributionError::Counts { correct: self.correct, samples: self.samples });
        }
        if !self.loss.is_finite() || self.loss < 0.0 {
            return Err(ContributionError::Loss { value: self.loss });
        }
        match &self.gradient {
            HeadGradient::Dense(gradient) => check_matrix("gradient", gradient, classes, width)?,
            HeadGradient::Factors { errors, features } => {
                let samples = self.samples as usize;
                check_matrix("errors", errors, samples, classes)?;
                check_matrix("features", features, samples, width)?;
            }
        }
        check_numbers("bias gradient", &self.bias_gradient, &[self.bias_gradient.len()], &[classes])?;
        check_numbers("mean features", &self.mean_features, &[self.mean_features.len()], &[width])
    }

    /// G, `C × s`.
    #[cfg(test)]
    pub(super) fn dense(&self) -> Matrix<T> {
        match &self.gradient {
            HeadGradient::Dense(gradient) => gradient.clone(),
            HeadGradient::Factors { errors, features } => errors.transposed_times(features),
        }
    }
}

fn check_matrix<T: Real>(
    tensor: &'static str,
    matrix: &Matrix<T>,
    rows: usize,
    cols: usize,
) -> Result<(), ContributionError> {
    check_numbers(tensor, matrix.as_slice(), &[matrix.rows(), matrix.cols()], &[rows, cols])
}

fn check_numbers<T: Real>(
    tensor: &'static str,
    numbers: &[T],
    given: &[usize],
    needed: &[usize],
) -> Result<(), ContributionError> {
    if given != needed {
        return Err(ContributionError::Shape { tensor, given: given.to_vec(), needed: needed.to_vec() });
    }
    if sum_of_squares_in_kind(numbers).is_finite() {
        return Ok(());
    }
    Err(match numbers.iter().position(|v| !v.is_finite()) {
        Some(position) => ContributionError::NotFinite { tensor, position, value: numbers[position].to_f64() },
        None => ContributionError::TooLarge { tensor },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Contribution<f32> {
        Contribution {
            gradient: HeadGradient::Dense(Matrix::zeros(3, 4)),
            bias_gradient: vec![0.0; 3],
            mean_features: vec![0.5; 4],
            loss: 1.0,
            correct: 1,
            samples: 2,
        }
    }

    fn factors(errors: Matrix<f32>, features: Matrix<f32>) -> Contribution<f32> {
        Contribution { gradient: HeadGradient::Factors { errors, features }, ..good() }
    }

    #[test]
    fn a_good_contribution_passes_in_both_forms() {
        assert_eq!(good().check(3, 4), Ok(()));
        assert_eq!(factors(Matrix::zeros(2, 3), Matrix::zeros(2, 4)).check(3, 4), Ok(()));
    }

    #[test]
    fn every_bad_contribution_says_what_and_where() {
        let nan = |i: usize, n: usize| (0..n).map(|j| if i == j { f32::NAN } else { 0.0 }).collect::<Vec<_>>();
        let cases = [
            (
                Contribution { gradient: HeadGradient::Dense(Matrix::zeros(4, 3)), ..good() },
                "`gradient` has shape [4, 3] but the head needs [3, 4]; use the head's width and classes of this job",
            ),
            (
                factors(Matrix::zeros(3, 3), Matrix::zeros(2, 4)),
                "`errors` has shape [3, 3] but the head needs [2, 3]; use the head's width and classes of this job",
            ),
            (
                factors(Matrix::zeros(2, 3), Matrix::zeros(2, 5)),
                "`features` has shape [2, 5] but the head needs [2, 4]; use the head's width and classes of this job",
            ),
            (
                Contribution { bias_gradient: nan(1, 3), ..good() },
                "`bias gradient` holds NaN at element 1; \
                 the encoder has diverged: lower its learning rate or set `clip`",
            ),
            (
                Contribution { mean_features: vec![f32::NEG_INFINITY; 4], ..good() },
                "`mean features` holds -inf at element 0; \
                 the encoder has diverged: lower its learning rate or set `clip`",
            ),
            (
                Contribution { mean_features: vec![1e30; 4], ..good() },
                "`mean features` is too large: its squared norm overflows; \
                 lower the encoder's learning rate or set `clip`",
            ),
            (
                Contribution { loss: f64::NAN, ..good() },
                "loss is NaN, but a mean cross-entropy is finite and not negative; the encoder has diverged: lower its \
                 learning rate or set `clip`",
            ),
            (
                Contribution { correct: 3, ..good() },
                "3 of 2 samples are reported as correct; send at least 1 sample, and report at most all as correct",
            ),
            (
                Contribution { correct: 0, samples: 0, ..good() },
                "0 of 0 samples are reported as correct; send at least 1 sample, and report at most all as correct",
            ),
        ];
        for (contribution, message) in cases {
            assert_eq!(contribution.check(3, 4).expect_err(message).to_string(), message);
        }
    }
}
