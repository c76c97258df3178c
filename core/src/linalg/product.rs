//! Matrix products, by the `gemm` crate, in tiles that threads share.
//!
//! Every element of a product is one sum over k, in an order that does not depend on the tiles. So its bits are those
//! of an undivided product. The tiles do not depend on the number of threads either.

use std::ops::Range;

use gemm::Parallelism;

use super::blocks::{PER_TOUCH, each, ranges};
use super::{Matrix, Real};

/// Columns and rows of a tile: enough of them that packing the operands for each tile costs little.
const COLUMNS: usize = 128;
const ROWS: usize = 256;

/// Multiplications below which a product is one tile.
const WORTH_CUTTING: usize = 1 << 20;

/// A row-major matrix, read directly or transposed.
#[derive(Clone, Copy)]
struct Operand<'a, T> {
    values: &'a [T],
    rows: usize,
    cols: usize,
    /// Elements from one row to the next, and from one column to the next.
    strides: (usize, usize),
}

impl<'a, T: Real> Operand<'a, T> {
    fn of(matrix: &'a Matrix<T>) -> Self {
        let (rows, cols) = matrix.shape();
        Self { values: matrix.as_slice(), rows, cols, strides: (cols, 1) }
    }

    fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, strides: (self.strides.1, self.strides.0), ..self }
    }

    /// The operand with these rows only.
    fn row_range(self, rows: Range<usize>) -> Self {
        let values = &self.values[(rows.start * self.strides.0).min(self.values.len())..];
        Self { values, rows: rows.len(), ..self }
    }

    /// Whether the strides reach no element outside the values.
    fn fits(&self) -> bool {
        let last = self.rows.saturating_sub(1) * self.strides.0 + self.cols.saturating_sub(1) * self.strides.1;
        self.rows == 0 || self.cols == 0 || last < self.values.len()
    }
}

impl<T: Real> Matrix<T> {
    /// A B: (m × k)(k × n) = (m × n).
    ///
    /// # Panics
    /// If A has not as many columns as B has rows.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        product(Operand::of(self), Operand::of(other))
    }

    /// A Bᵀ: (m × k)(n × k)ᵀ = (m × n).
    ///
    /// # Panics
    /// If A and B differ in the number of columns.
    #[must_use]
    pub fn times_transposed(&self, other: &Self) -> Self {
        product(Operand::of(self), Operand::of(other).transposed())
    }

    /// Aᵀ B: (k × m)ᵀ(k × n) = (m × n).
    ///
    /// # Panics
    /// If A and B differ in the number of rows.
    #[must_use]
    pub fn transposed_times(&self, other: &Self) -> Self {
        product(Operand::of(self).transposed(), Operand::of(other))
    }

    /// [`Self::times`], written into the memory of `out`, whatever it was.
    pub(crate) fn times_into(&self, other: &Self, out: &mut Self) {
        out.reshape(self.rows(), other.cols());
        write(Operand::of(self), Operand::of(other), Then::Replace, out.as_mut_slice());
    }

    /// [`Self::transposed_times`], written into the memory of `out`, whatever it was.
    pub(crate) fn transposed_times_into(&self, other: &Self, out: &mut Self) {
        out.reshape(self.cols(), other.cols());
        write(Operand::of(self).transposed(), Operand::of(other), Then::Replace, out.as_mut_slice());
    }

    /// These rows of Aᵀ B, on this thread. The bits are those of [`Self::transposed_times`] if there are at least two
    /// rows, and more than 64 rows or columns where the whole product has more than 64 of either.
    pub(crate) fn rows_of_transposed_times(&self, rows: Range<usize>, other: &Self, out: &mut [T]) {
        let left = Operand::of(self).transposed().row_range(rows.clone());
        assert!(rows.end <= self.cols() && left.cols == other.rows(), "rows of a product that does not exist");
        assert_eq!(out.len(), rows.len() * other.cols(), "one element for each of these rows and columns");
        let whole = Tile { rows: 0..rows.len(), cols: 0..other.cols() };
        tile(left, Operand::of(other), Then::Replace, &whole, &Destination::of(out, other.cols()));
    }

    /// `self ← self − A B`.
    pub(crate) fn subtract_product(&mut self, a: &Self, b: &Self) {
        assert_eq!(self.shape(), (a.rows(), b.cols()), "a product of another shape cannot be subtracted");
        write(Operand::of(a), Operand::of(b), Then::Subtract, self.as_mut_slice());
    }
}

/// What the product does to the destination.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Replace,
    Subtract,
}

fn product<T: Real>(a: Operand<'_, T>, b: Operand<'_, T>) -> Matrix<T> {
    let mut out = Matrix::zeros(a.rows, b.cols);
    write(a, b, Then::Replace, out.as_mut_slice());
    out
}

fn write<T: Real>(a: Operand<'_, T>, b: Operand<'_, T>, then: Then, out: &mut [T]) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(k, b.rows, "a product of {m} x {k} and {} x {n} matrices does not exist", b.rows);
    assert_eq!(out.len(), m * n, "one element for each row and column of the product");
    let destination = Destination::of(out, n);
    let multiplications = m.saturating_mul(k).saturating_mul(n);
    // `gemm` has special methods for small or very thin products. A tile must not use one where the whole product would
    // not.
    if multiplications < WORTH_CUTTING || m.min(n) < 8 {
        return tile(a, b, then, &Tile { rows: 0..m, cols: 0..n }, &destination);
    }
    let tiles = ranges(m, ROWS)
        .into_iter()
        .flat_map(|rows| ranges(n, COLUMNS).into_iter().map(move |cols| Tile { rows: rows.clone(), cols }));
    each(tiles.collect(), multiplications / PER_TOUCH, |at| tile(a, b, then, &at, &destination));
}

/// A block of a product.
struct Tile {
    rows: Range<usize>,
    cols: Range<usize>,
}

/// The output of a product: row-major, without gaps.
struct Destination<'a, T> {
    values: *mut T,
    length: usize,
    width: usize,
    borrowed: std::marker::PhantomData<&'a mut [T]>,
}

impl<'a, T> Destination<'a, T> {
    fn of(values: &'a mut [T], width: usize) -> Self {
        Self { values: values.as_mut_ptr(), length: values.len(), width, borrowed: std::marker::PhantomData }
    }
}

// SAFETY: threads that share it write tiles that have no element in common (`ranges` do not overlap), and none of them
// reads it.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Destination<'_, T> {}

fn stride(elements: usize) -> isize {
    isize::try_from(elements).expect("a matrix in memory has a width that fits isize")
}

// `gemm` takes pointers. This is its only call.
#[allow(unsafe_code)]
fn tile<T: Real>(a: Operand<'_, T>, b: Operand<'_, T>, then: Then, at: &Tile, to: &Destination<'_, T>) {
    let (m, k, n) = (at.rows.len(), a.cols, at.cols.len());
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.fits() && b.fits() && k == b.rows, "operands that lie within their matrices");
    assert!(at.rows.end <= a.rows && at.cols.end <= b.cols, "a tile that lies within the product");
    assert!(
        at.cols.end <= to.width && (at.rows.end - 1) * to.width + at.cols.end <= to.length,
        "and within its destination"
    );
    let (a_first, b_first) = (at.rows.start * a.strides.0, at.cols.start * b.strides.1);
    let (beta, keep) = if then == Then::Subtract { (-T::ONE, true) } else { (T::ONE, false) };
    // SAFETY: `T` is `f32` or `f64` (`Real` is sealed), which `gemm` supports. The assertions above say that the
    // strides reach no element outside the slices, from the first row or column of the tile to its last one. Where
    // there is nothing to sum (k = 0), the operands are not read and their pointers are only moved (`wrapping_add`).
    // The destination is borrowed mutably for as long as `to` lives, and no two tiles of it that are written at a time
    // have an element in common.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to.values.wrapping_add(at.rows.start * to.width + at.cols.start),
            1,
            stride(to.width),
            keep,
            a.values.as_ptr().wrapping_add(a_first),
            stride(a.strides.1),
            stride(a.strides.0),
            b.values.as_ptr().wrapping_add(b_first),
            stride(b.strides.1),
            stride(b.strides.0),
            T::ONE,
            beta,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::all_finite;

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
    fn a_product_in_tiles_has_the_bits_of_the_product_at_once() {
        // Larger than a tile in both directions, in one, in none; sums short and long; nothing a multiple of anything.
        for (m, k, n) in [(64, 700, 301), (600, 65, 31), (523, 9, 777), (101, 768, 768), (9, 1200, 300), (530, 530, 2)]
        {
            let (a, b) = (example(m, k, 0.4).map(|v| v as f32), example(k, n, 0.5).map(|v| v as f32));
            for (left, right) in [
                (Operand::of(&a), Operand::of(&b)),
                (Operand::of(&a.transpose()).transposed(), Operand::of(&b)),
                (Operand::of(&a), Operand::of(&b.transpose()).transposed()),
            ] {
                let mut whole = Matrix::zeros(m, n);
                let everything = Tile { rows: 0..m, cols: 0..n };
                tile(left, right, Then::Replace, &everything, &Destination::of(whole.as_mut_slice(), n));
                assert_eq!(product(left, right), whole, "{m} x {k} x {n}");
            }
            let (left, whole) = (a.transpose(), a.transpose().transposed_times(&b));
            for rows in [0..m, 0..2, m - 5..m].into_iter().filter(|rows| rows.len().max(n) > 64) {
                let mut out = vec![f32::NAN; rows.len() * n];
                left.rows_of_transposed_times(rows.clone(), &b, &mut out);
                assert_eq!(out, whole.as_slice()[rows.start * n..rows.end * n]);
            }
        }
    }

    #[test]
    fn a_product_can_be_taken_away() {
        let (a, b, mut rest) = (example(70, 9, 0.1), example(9, 150, 0.2), example(70, 150, 0.3));
        let before = rest.clone();
        rest.subtract_product(&a, &b);
        for ((after, before), taken) in rest.as_slice().iter().zip(before.as_slice()).zip(a.times(&b).as_slice()) {
            assert!((after - (before - taken)).abs() < 1e-13);
        }
        rest.subtract_product(&Matrix::zeros(70, 0), &Matrix::zeros(0, 150));
        assert!(all_finite(rest.as_slice()));
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
