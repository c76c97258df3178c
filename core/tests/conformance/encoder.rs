//! The encoder of the vectors: two linear layers with a ReLU between them, in plain code.

use antiphon_core::linalg::{Matrix, Real};
use antiphon_core::optimizer::Optimizer;
use antiphon_core::spec::OptimizerRule;
use serde::Deserialize;

use crate::{Tolerance, assert_all_close, matrix, vector};

/// An encoder's parameters as the vectors write them.
#[derive(Deserialize)]
pub(crate) struct Parameters {
    w1: Vec<Vec<f64>>,
    b1: Vec<f64>,
    w2: Vec<Vec<f64>>,
    b2: Vec<f64>,
}

/// f(x) = relu(x w1ᵀ + b1) w2ᵀ + b2.
pub(crate) struct Encoder<T> {
    w1: Matrix<T>,
    b1: Vec<T>,
    w2: Matrix<T>,
    b2: Vec<T>,
    optimizer: Optimizer<T>,
}

impl<T: Real> Encoder<T> {
    pub(crate) fn new(start: &Parameters, rule: &OptimizerRule) -> Self {
        let (w1, b1, w2, b2) = (matrix(&start.w1), vector(&start.b1), matrix(&start.w2), vector(&start.b2));
        let sizes = [w1.rows() * w1.cols(), b1.len(), w2.rows() * w2.cols(), b2.len()];
        Self { w1, b1, w2, b2, optimizer: Optimizer::new(rule, &sizes) }
    }

    /// The hidden layer (B × hidden), and H (B × s).
    pub(crate) fn forward(&self, x: &Matrix<T>) -> (Matrix<T>, Matrix<T>) {
        let middle = affine(x, &self.w1, &self.b1).map(|v| if v > T::ZERO { v } else { T::ZERO });
        let features = affine(&middle, &self.w2, &self.b2);
        (middle, features)
    }

    /// One step on dH (B × s), for the batch x and its hidden layer.
    pub(crate) fn step(&mut self, x: &Matrix<T>, middle: &Matrix<T>, feature_gradient: &Matrix<T>, lr: f64) {
        let mut middle_gradient = feature_gradient.times(&self.w2);
        for (gradient, value) in middle_gradient.as_mut_slice().iter_mut().zip(middle.as_slice()) {
            if *value <= T::ZERO {
                *gradient = T::ZERO;
            }
        }
        self.optimizer.step(
            lr,
            &mut [self.w1.as_mut_slice(), &mut self.b1, self.w2.as_mut_slice(), &mut self.b2],
            &[
                middle_gradient.transposed_times(x).as_slice(),
                &vector(&middle_gradient.column_sums()),
                feature_gradient.transposed_times(middle).as_slice(),
                &vector(&feature_gradient.column_sums()),
            ],
        );
    }
}

impl<T: Tolerance> Encoder<T> {
    pub(crate) fn assert_close(&self, what: &str, end: &Parameters) {
        assert_all_close(&format!("{what} w1"), self.w1.as_slice(), &end.w1.concat());
        assert_all_close(&format!("{what} b1"), &self.b1, &end.b1);
        assert_all_close(&format!("{what} w2"), self.w2.as_slice(), &end.w2.concat());
        assert_all_close(&format!("{what} b2"), &self.b2, &end.b2);
    }
}

fn affine<T: Real>(x: &Matrix<T>, weight: &Matrix<T>, bias: &[T]) -> Matrix<T> {
    let mut out = x.times_transposed(weight);
    for i in 0..out.rows() {
        for (value, bias) in out.row_mut(i).iter_mut().zip(bias) {
            *value = *value + *bias;
        }
    }
    out
}
