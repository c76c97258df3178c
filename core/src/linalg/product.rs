//! Matrix products on one thread, by the `gemm` crate.

use gemm::Parallelism;

use super::{Matrix, Real};

/// How a row-major matrix is read: as it lies, or transposed.
struct Operand<'a, T> {
    matrix: &'a Matrix<T>,
    transposed: bool,
}

impl<'a, T: Real> Operand<'a, T> {
    fn rows(&self) -> usize {
        if self.transposed { self.matrix.cols() } else { self.matrix.rows() }
    }

    fn cols(&self) -> usize {
        if self.transposed { self.matrix.rows() } else { self.matrix.cols() }
    }

    /// Elements from one row to the next, and from one column to the next.
    fn strides(&self) -> (isize, isize) {
        let width = isize::try_from(self.matrix.cols()).expect("a matrix in memory has a width that fits isize");
        if self.transposed { (1, width) } else { (width, 1) }
    }
}

impl<T: Real> Matrix<T> {
    /// A B: (m × k)(k × n) = (m × n).
    ///
    /// # Panics
    /// If A has not as many columns as B has rows.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        product(&Operand { matrix: self, transposed: false }, &Operand { matrix: other, transposed: false })
    }

    /// A Bᵀ: (m × k)(n × k)ᵀ = (m × n).
    ///
    /// # Panics
    /// If A and B differ in the number of columns.
    #[must_use]
    pub fn times_transposed(&self, other: &Self) -> Self {
        product(&Operand { matrix: self, transposed: false }, &Operand { matrix: other, transposed: true })
    }

    /// Aᵀ B: (k × m)ᵀ(k × n) = (m × n).
    ///
    /// # Panics
    /// If A and B differ in the number of rows.
    #[must_use]
    pub fn transposed_times(&self, other: &Self) -> Self {
        product(&Operand { matrix: self, transposed: true }, &Operand { matrix: other, transposed: false })
    }
}

// The engine takes pointers. This is the only place that hands it any.
#[allow(unsafe_code)]
fn product<T: Real>(a: &Operand<'_, T>, b: &Operand<'_, T>) -> Matrix<T> {
    let (m, k, n) = (a.rows(), a.cols(), b.cols());
    assert_eq!(k, b.rows(), "a product of {m} x {k} and {} x {n} matrices does not exist", b.rows());
    let mut out = Matrix::zeros(m, n);
    let ((a_row, a_col), (b_row, b_col)) = (a.strides(), b.strides());
    let out_row = isize::try_from(n).expect("a matrix in memory has a width that fits isize");
    // SAFETY: `T` is `f32` or `f64` (`Real` is sealed), which the engine knows. Each pointer comes from a slice of exactly
    // rows · cols elements (the invariant of `Matrix`), and the strides above reach no element outside it: row-major
    // has strides (cols, 1), its transpose (1, cols). `out` is borrowed mutably and by nobody else.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_slice().as_mut_ptr(),
            1,
            out_row,
            false,
            a.matrix.as_slice().as_ptr(),
            a_col,
            a_row,
            b.matrix.as_slice().as_ptr(),
            b_col,
            b_row,
            T::ZERO,
            T::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(rows: usize, cols: usize, phase: f64) -> Matrix<f64> {
        let data = (0..rows * cols).map(|i| (i as f64 * 0.7 + phase).sin()).collect();
        Matrix::from_vec(rows, cols, data).expect("rows · cols elements")
    }

    fn naive(a: &Matrix<f64>, b: &Matrix<f64>) -> Matrix<f64> {
        let mut out = Matrix::zeros(a.rows(), b.cols());
        for i in 0..a.rows() {
            for j in 0..b.cols() {
                out.row_mut(i)[j] = (0..a.cols()).map(|k| a.row(i)[k] * b.row(k)[j]).sum();
            }
        }
        out
    }

    fn assert_close(a: &Matrix<f64>, b: &Matrix<f64>) {
        assert_eq!(a.shape(), b.shape());
        for (x, y) in a.as_slice().iter().zip(b.as_slice()) {
            assert!((x - y).abs() < 1e-12, "{x} is not {y}");
        }
    }

    #[test]
    fn products_of_every_kind_and_shape_agree_with_the_definition() {
        for (m, k, n) in [(1, 1, 1), (1, 7, 3), (3, 5, 1), (2, 3, 4), (17, 33, 9), (64, 10, 70)] {
            let (a, b) = (example(m, k, 0.1), example(k, n, 0.2));
            let expected = naive(&a, &b);
            assert_close(&a.times(&b), &expected);
            assert_close(&a.times_transposed(&b.transpose()), &expected);
            assert_close(&a.transpose().transposed_times(&b), &expected);
        }
    }

    #[test]
    fn an_empty_sum_is_zero() {
        assert_eq!(Matrix::<f32>::zeros(2, 0).times(&Matrix::zeros(0, 3)), Matrix::zeros(2, 3));
    }

    #[test]
    fn the_identity_changes_no_bit() {
        let a = example(9, 21, 0.3);
        assert_eq!(a.times(&Matrix::identity(21)), a);
    }

    #[test]
    fn the_same_product_has_the_same_bits_wherever_its_operands_lie() {
        let (a, b) = (example(37, 65, 0.4).map(|v| v as f32), example(65, 41, 0.5).map(|v| v as f32));
        let first = a.times(&b);
        let mut kept = Vec::new();
        for padding in 1..20 {
            kept.push(vec![0_u8; padding * 24]);
            assert_eq!(a.clone().times(&b.clone()), first);
        }
    }

    #[test]
    #[should_panic(expected = "a product of 2 x 3 and 4 x 2 matrices does not exist")]
    fn shapes_that_do_not_fit_are_a_mistake_of_the_caller() {
        let _ = Matrix::<f64>::zeros(2, 3).times(&Matrix::zeros(4, 2));
    }
}
