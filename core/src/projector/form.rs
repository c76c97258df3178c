//! The two representations of a projector.

use std::sync::OnceLock;

use serde::{Serialize, Serializer};

use crate::linalg::{Matrix, Real, sum_of_squares};

use super::window;

/// P (`s × s`), stored itself or as I − Xᵀ X. Two forms are equal if their P is.
#[derive(Debug, Clone)]
pub(crate) enum Form<T> {
    /// P.
    Dense(Matrix<T>),
    /// I − Xᵀ X, for X (`K × s`).
    Without {
        /// X; without rows, P is the identity.
        x: Matrix<T>,
        /// P, after its first use.
        dense: OnceLock<Matrix<T>>,
    },
}

impl<T: Real> Form<T> {
    /// I − Xᵀ X.
    pub(super) fn without(x: Matrix<T>) -> Self {
        Self::Without { x, dense: OnceLock::new() }
    }

    /// I (`s × s`). Nothing is stored.
    pub(super) fn identity(width: usize) -> Self {
        Self::without(Matrix::zeros(0, width))
    }

    /// s.
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.cols(),
            Self::Without { x, .. } => x.cols(),
        }
    }

    /// P, symmetric to the last bit. It is computed at its first use.
    pub(super) fn matrix(&self) -> &Matrix<T> {
        match self {
            Self::Dense(matrix) => matrix,
            Self::Without { x, dense } => dense.get_or_init(|| window::dense(x)),
        }
    }

    /// [`Self::matrix`].
    pub(super) fn into_matrix(self) -> Matrix<T> {
        match self {
            Self::Dense(matrix) => matrix,
            Self::Without { x, dense } => dense.into_inner().unwrap_or_else(|| window::dense(&x)),
        }
    }

    /// trace(P), without computing P.
    pub(super) fn trace(&self) -> f64 {
        match self {
            Self::Dense(matrix) => matrix.trace(),
            Self::Without { x, .. } => x.cols() as f64 - sum_of_squares(x.as_slice()),
        }
    }

    /// A P, written into the memory of `out`, for A (`n × s`): n s² multiplications, or 2 n s K.
    ///
    /// # Panics
    /// If A is not `s` wide.
    pub(crate) fn project(&self, a: &Matrix<T>, out: &mut Matrix<T>) {
        match self {
            Self::Dense(matrix) => a.times_into(matrix, out),
            Self::Without { x, .. } => {
                out.reshape(a.rows(), a.cols());
                out.as_mut_slice().copy_from_slice(a.as_slice());
                if x.rows() > 0 {
                    out.subtract_product(&a.times_transposed(x), x);
                }
            }
        }
    }
}

impl<T: Real> PartialEq for Form<T> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Without { x: one, .. }, Self::Without { x: other, .. }) if one == other => true,
            _ => self.matrix() == other.matrix(),
        }
    }
}

impl<T: Real + Serialize> Serialize for Form<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.matrix().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_project_alike_and_have_one_trace() {
        let x =
            Matrix::from_vec(2, 5, vec![0.6, 0.0, 0.8, 0.0, 0.0, 0.0, 0.5, 0.0, 0.1, 0.0]).expect("two rows of five");
        let a = Matrix::from_vec(3, 5, (0..15).map(f64::from).collect()).expect("three rows of five");
        let without = Form::without(x);
        let dense = Form::Dense(without.matrix().clone());
        assert_eq!(without, dense);
        let (mut one, mut other) = (Matrix::default(), Matrix::zeros(7, 7));
        without.project(&a, &mut one);
        dense.project(&a, &mut other);
        for (x, y) in one.as_slice().iter().zip(other.as_slice()) {
            assert!((x - y).abs() < 1e-14);
        }
        assert!((without.trace() - dense.trace()).abs() < 1e-14);
    }

    #[test]
    fn the_identity_changes_no_bit() {
        let a = Matrix::from_vec(3, 5, (0..15).map(|i| (i as f32).sin()).collect()).expect("three rows of five");
        let (identity, mut out) = (Form::identity(5), Matrix::default());
        identity.project(&a, &mut out);
        assert_eq!((&out, identity.trace()), (&a, 5.0));
        assert_eq!(identity.matrix(), &Matrix::identity(5));
    }
}
