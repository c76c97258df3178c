//! A gradient of W, which is not computed as a whole where its factors suffice, and its norm.

use std::ops::Range;

use crate::linalg::blocks::{PER_TOUCH, each, each_with, ranges};
use crate::linalg::{Matrix, Real, sum_of_squares};

/// A gradient of W, `C × s`.
#[derive(Clone, Copy)]
pub(super) enum Gradient<'a, T> {
    /// G itself.
    Dense(&'a Matrix<T>),
    /// Dᵀ H, for D (`B × C`) and H (`B × s`).
    Product { errors: &'a Matrix<T>, features: &'a Matrix<T> },
}

/// Numbers of W that a thread processes at a time, in whole rows, but at least [`ROWS`] of them. The last bits of norms
/// depend on both.
const BLOCK: usize = 1 << 14;
const ROWS: usize = 16;

/// The rows of a matrix of this shape, divided into blocks.
pub(super) fn blocks_of_rows((rows, width): (usize, usize)) -> Vec<Range<usize>> {
    ranges(rows, (BLOCK / width.max(1)).max(ROWS))
}

impl<T: Real> Gradient<'_, T> {
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Dense(matrix) => matrix.shape(),
            Self::Product { errors, features } => (errors.cols(), features.cols()),
        }
    }

    /// These rows: borrowed if they exist, otherwise computed into `scratch`.
    pub(super) fn rows<'b>(&'b self, rows: Range<usize>, scratch: &'b mut Vec<T>) -> &'b [T] {
        match self {
            Self::Dense(matrix) => &matrix.as_slice()[rows.start * matrix.cols()..rows.end * matrix.cols()],
            Self::Product { errors, features } => {
                scratch.resize(rows.len() * features.cols(), T::ZERO);
                errors.rows_of_transposed_times(rows, features, scratch);
                scratch
            }
        }
    }

    /// The cost of computing all rows, in numbers touched.
    pub(super) fn cost(&self) -> usize {
        let (rows, width) = self.shape();
        match self {
            Self::Dense(_) => rows * width,
            Self::Product { errors, .. } => (rows * width).saturating_mul(errors.rows()) / PER_TOUCH,
        }
    }

    /// The Frobenius norm. For a product it is computed as |Dᵀ H|² = Σ (D Dᵀ) ∘ (H Hᵀ) where that is cheaper: 2 B² (C +
    /// s) multiplications in `f64`, and no memory.
    pub(super) fn norm(&self) -> f64 {
        match self {
            Self::Dense(matrix) => matrix.norm(),
            Self::Product { errors, features } => {
                let (classes, width) = self.shape();
                if 2 * errors.rows() * (classes + width) < classes * width {
                    let (errors, features) = (gram(errors), gram(features));
                    let sum: f64 = errors.as_slice().iter().zip(features.as_slice()).map(|(x, y)| x * y).sum();
                    sum.max(0.0).sqrt()
                } else {
                    self.norm_by_rows()
                }
            }
        }
    }

    fn norm_by_rows(&self) -> f64 {
        let squares = |scratch: &mut Vec<T>, rows| sum_of_squares(self.rows(rows, scratch));
        each_with(blocks_of_rows(self.shape()), self.cost(), Vec::new, squares).into_iter().sum::<f64>().sqrt()
    }
}

/// Columns of a matrix whose products are summed before the sums are added up.
const COLUMNS: usize = 512;

/// A Aᵀ (`n × n`) in `f64`, for A (`n × m`).
fn gram<T: Real>(matrix: &Matrix<T>) -> Matrix<f64> {
    let (rows, cols) = matrix.shape();
    let cost = cols.saturating_mul(rows).saturating_mul(rows) / PER_TOUCH;
    let sums = each(ranges(cols, COLUMNS), cost, |columns| {
        let block = matrix.iter_rows().flat_map(|row| row[columns.clone()].iter().map(|x| x.to_f64())).collect();
        let block = Matrix::from_vec(rows, columns.len(), block).expect("these columns of every row");
        block.times_transposed(&block)
    });
    let mut total = Matrix::zeros(rows, rows);
    for sum in sums {
        total.as_mut_slice().iter_mut().zip(sum.as_slice()).for_each(|(total, x)| *total += x);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_of_a_product_is_that_of_the_matrix() {
        let example = |rows, cols, phase: f64| -> Matrix<f64> {
            let numbers = (0..rows * cols).map(|i| (i as f64 * 0.7 + phase).sin()).collect();
            Matrix::from_vec(rows, cols, numbers).expect("as many")
        };
        for (batch, classes, width) in [(1, 3, 5), (2, 100, 90), (3, 1100, 700), (64, 10, 30), (64, 101, 300)] {
            let (errors, features) = (example(batch, classes, 0.1), example(batch, width, 0.2));
            let product = errors.transposed_times(&features);
            let expected = product.norm();
            let gradient = Gradient::Product { errors: &errors, features: &features };
            for norm in [gradient.norm(), gradient.norm_by_rows(), Gradient::Dense(&product).norm()] {
                assert!((norm - expected).abs() < 1e-12 * expected, "{batch}, {classes}, {width}: {norm}, {expected}");
            }
        }
        let nothing = Matrix::<f32>::zeros(2, 100);
        assert_eq!(Gradient::Product { errors: &nothing, features: &nothing }.norm(), 0.0);
    }
}
