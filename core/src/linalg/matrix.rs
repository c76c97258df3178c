//! A dense matrix in row-major order.

use serde::{Deserialize, Serialize};

use super::blocks::each;
use super::sums::all_finite;
use super::vector::vectorised;
use super::{Real, norm};

/// Columns whose sums a thread takes together.
const COLUMNS: usize = 512;

/// The number of elements does not match the shape of a matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a {rows} x {columns} matrix cannot be made of {elements} elements; give one per row and column, in row-major order"
)]
pub struct ShapeError {
    /// The rows of the requested matrix.
    pub rows: usize,
    /// The columns of the requested matrix.
    pub columns: usize,
    /// The number of elements that were given.
    pub elements: usize,
}

/// A dense `rows × cols` matrix in row-major order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked<T>", bound(deserialize = "T: Deserialize<'de>"))]
pub struct Matrix<T> {
    rows: usize,
    cols: usize,
    data: Vec<T>,
}

/// The empty matrix, 0 × 0.
impl<T> Default for Matrix<T> {
    fn default() -> Self {
        Self { rows: 0, cols: 0, data: Vec::new() }
    }
}

/// What a serialised matrix holds before its shape has been checked.
#[derive(Deserialize)]
struct Unchecked<T> {
    rows: usize,
    cols: usize,
    data: Vec<T>,
}

impl<T> TryFrom<Unchecked<T>> for Matrix<T> {
    type Error = ShapeError;
    fn try_from(unchecked: Unchecked<T>) -> Result<Self, ShapeError> {
        Self::from_vec(unchecked.rows, unchecked.cols, unchecked.data)
    }
}

impl<T> Matrix<T> {
    /// A matrix of these elements, row after row.
    ///
    /// # Errors
    /// If there are not `rows · cols` of them.
    pub fn from_vec(rows: usize, cols: usize, data: Vec<T>) -> Result<Self, ShapeError> {
        if rows.checked_mul(cols) == Some(data.len()) {
            Ok(Self { rows, cols, data })
        } else {
            Err(ShapeError { rows, columns: cols, elements: data.len() })
        }
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// (rows, columns).
    #[must_use]
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    /// Row `i`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, i: usize) -> &[T] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Row `i`, to be written.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        &mut self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// The rows, from the first to the last.
    pub fn iter_rows(&self) -> impl Iterator<Item = &[T]> {
        (0..self.rows).map(|i| self.row(i))
    }

    /// All elements, row after row.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.data
    }

    /// All elements, row after row, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// All elements, row after row.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.data
    }
}

impl<T: Real> Matrix<T> {
    /// A matrix of zeros.
    ///
    /// # Panics
    /// If the number of elements overflows.
    #[must_use]
    pub fn zeros(rows: usize, cols: usize) -> Self {
        let elements = rows.checked_mul(cols).expect("the shape of a matrix that fits in memory");
        Self { rows, cols, data: vec![T::ZERO; elements] }
    }

    /// Makes it `rows × cols`, in the same memory if that is large enough. The caller must overwrite the elements.
    pub(crate) fn reshape(&mut self, rows: usize, cols: usize) {
        self.data.resize(rows.checked_mul(cols).expect("the shape of a matrix that fits in memory"), T::ZERO);
        (self.rows, self.cols) = (rows, cols);
    }

    /// The `size × size` identity.
    #[must_use]
    pub fn identity(size: usize) -> Self {
        let mut identity = Self::zeros(size, size);
        for i in 0..size {
            identity.row_mut(i)[i] = T::ONE;
        }
        identity
    }

    /// A matrix of `f` of each element.
    #[must_use]
    pub fn map<U: Real>(&self, mut f: impl FnMut(T) -> U) -> Matrix<U> {
        Matrix { rows: self.rows, cols: self.cols, data: self.data.iter().map(|v| f(*v)).collect() }
    }

    /// The same numbers in `f64`, exactly.
    #[must_use]
    pub fn to_f64(&self) -> Matrix<f64> {
        self.map(T::to_f64)
    }

    /// The nearest numbers of type `T`.
    #[must_use]
    pub fn from_f64(matrix: &Matrix<f64>) -> Self {
        matrix.map(T::from_f64)
    }

    /// Aᵀ, `cols × rows`.
    #[must_use]
    pub fn transpose(&self) -> Self {
        let mut transposed = Self::zeros(self.cols, self.rows);
        for (i, row) in self.iter_rows().enumerate() {
            for (j, value) in row.iter().enumerate() {
                transposed.row_mut(j)[i] = *value;
            }
        }
        transposed
    }

    /// The sum of the diagonal of a square matrix, in `f64`.
    #[must_use]
    pub fn trace(&self) -> f64 {
        self.iter_rows().enumerate().filter_map(|(i, row)| row.get(i)).map(|v| v.to_f64()).sum()
    }

    /// The Frobenius norm, in `f64`.
    #[must_use]
    pub fn norm(&self) -> f64 {
        norm(&self.data)
    }

    /// The sum of the rows, one element per column, from the first row to the last, in `f64`.
    #[must_use]
    pub fn column_sums(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.cols];
        let blocks = sums.chunks_mut(COLUMNS).enumerate().collect();
        each(blocks, self.data.len(), |(number, sums): (usize, &mut [f64])| {
            vectorised(
                #[inline(always)]
                || {
                    for i in 0..self.rows {
                        let row = &self.row(i)[number * COLUMNS..][..sums.len()];
                        for (sum, value) in sums.iter_mut().zip(row) {
                            *sum += value.to_f64();
                        }
                    }
                },
            );
        });
        sums
    }

    /// The position of the first element in row-major order that is infinite or NaN.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<usize> {
        if all_finite(&self.data) { None } else { self.data.iter().position(|v| !v.is_finite()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_gives_the_matrix_back() {
        let a = Matrix::from_vec(2, 3, vec![1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("six elements");
        assert_eq!(a.transpose().as_slice(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(a.transpose().transpose(), a);
    }

    #[test]
    fn a_wrong_number_of_elements_is_rejected_without_overflow() {
        assert_eq!(
            Matrix::from_vec(2, 3, vec![0.0_f32; 5]).expect_err("one is missing").to_string(),
            "a 2 x 3 matrix cannot be made of 5 elements; give one per row and column, in row-major order"
        );
        assert!(Matrix::<f32>::from_vec(usize::MAX, 2, Vec::new()).is_err());
        assert!(serde_json::from_str::<Matrix<f64>>(r#"{"rows":1,"cols":2,"data":[1.0]}"#).is_err());
    }

    #[test]
    fn the_trace_and_the_norm_of_the_identity_are_known() {
        let identity = Matrix::<f32>::identity(9);
        assert_eq!((identity.trace(), identity.norm()), (9.0, 3.0));
        assert_eq!(identity.column_sums(), [1.0; 9]);
    }

    #[test]
    fn columns_are_summed_from_the_first_row_to_the_last() {
        let matrix =
            Matrix::from_vec(130, 1031, (0..130 * 1031).map(|i| (i as f32 * 0.7).sin()).collect()).expect("as many");
        let mut expected = vec![0.0_f64; 1031];
        for row in matrix.iter_rows() {
            expected.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        assert_eq!(matrix.column_sums(), expected);
    }
}
