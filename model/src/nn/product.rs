//! Matrix products over slices.
//!
//! The right operand is first packed into [`Panels`], once for all users. Every element of a product is one sum in
//! ascending order (see [`super::tile`]), so bits depend neither on threads nor on the blocks of the product.

use super::buffer::unwritten;
use super::number::Number;
use super::parallel::{block_for_threads, each_chunk};
use super::tile::{self, Into, PANEL, Runs};

/// A view of a slice as a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T: Number> View<'a, T> {
    /// A row-major view without gaps.
    pub(crate) fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// A row-major view in which rows start `row_stride` values apart.
    ///
    /// # Panics
    /// If `values` is too short.
    pub(crate) fn strided(values: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        let end = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
        assert!(end <= values.len(), "a {rows} × {columns} view with stride {row_stride} over {} values", values.len());
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transposed view of the same values.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A right operand (K × N), packed for [`tile`]: panels of [`PANEL`] columns, the last one padded with zeros.
#[derive(Debug)]
pub(crate) struct Panels<T> {
    depth: usize,
    columns: usize,
    values: Vec<T>,
}

/// Rows of a matrix that are packed at a time, so that the output stays in the cache.
const ROWS_AT_A_TIME: usize = 64;

impl<T: Number> Panels<T> {
    /// Of a matrix.
    pub(crate) fn of(right: View<'_, T>) -> Self {
        Self::filled(right.rows, right.columns, |columns, panel| {
            if right.column_stride == 1 {
                for (k, into) in panel.chunks_exact_mut(PANEL).enumerate() {
                    let from = &right.values[k * right.row_stride + columns.start..][..columns.len()];
                    into[..columns.len()].copy_from_slice(from);
                }
                return;
            }
            for (block, into) in panel.chunks_mut(ROWS_AT_A_TIME * PANEL).enumerate() {
                for (n, column) in columns.clone().enumerate() {
                    let from = right.values[column * right.column_stride..].iter().skip(block * ROWS_AT_A_TIME);
                    into[n..].iter_mut().step_by(PANEL).zip(from).for_each(|(into, from)| *into = *from);
                }
            }
        })
    }

    /// The panels of a matrix that `fill` writes, some columns at a time: row k of these columns to `panel[k ·
    /// PANEL..]`, which is initially zero.
    pub(crate) fn filled(
        depth: usize,
        columns: usize,
        fill: impl Fn(std::ops::Range<usize>, &mut [T]) + Sync + Send,
    ) -> Self {
        let mut values = vec![T::ZERO; columns.div_ceil(PANEL) * depth * PANEL];
        each_chunk(
            &mut values,
            depth * PANEL,
            || (),
            |(), number, panel| fill(number * PANEL..columns.min((number + 1) * PANEL), panel),
        );
        Self { depth, columns, values }
    }

    /// N.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The first column of each panel, its number of columns, and its values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, usize, &[T])> {
        // Without rows there is nothing to pack, and the product is 0.
        let panels = (0..self.columns).step_by(PANEL);
        panels.map(|first| {
            let panel = &self.values[first * self.depth..][..self.depth * PANEL];
            (first, PANEL.min(self.columns - first), panel)
        })
    }
}

/// Bytes of the left operand that are multiplied by one panel after the other, so that they stay in the cache.
const NEAR: usize = 1 << 17;

/// `into = left right`, or `into += left right` with `accumulate`; `into` is row-major without gaps.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn multiply<T: Number>(into: &mut [T], accumulate: bool, left: View<'_, T>, right: View<'_, T>) {
    multiply_panels(into, accumulate, left, &Panels::of(right));
}

/// [`multiply`] with a packed right operand.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn multiply_panels<T: Number>(into: &mut [T], accumulate: bool, left: View<'_, T>, right: &Panels<T>) {
    assert_eq!(left.columns, right.depth, "inner dimensions differ");
    assert_eq!(into.len(), left.rows * right.columns, "the product does not fit its destination");
    let stride = right.columns;
    if left.column_stride == 1 {
        let block = (NEAR / (left.columns * size_of::<T>()).max(1)).clamp(16, 256);
        let starts: Vec<usize> = (0..left.rows).map(|row| row * left.row_stride).collect();
        for (number, starts) in starts.chunks(block).enumerate() {
            for (first, columns, panel) in right.iter() {
                let values = &mut into[number * block * stride + first..];
                tile::rows(
                    left.values,
                    starts,
                    Runs::whole(left.columns),
                    panel,
                    Into { values, stride, columns, accumulate },
                );
            }
        }
    } else {
        let starts: Vec<usize> = (0..left.columns).map(|column| column * left.column_stride).collect();
        for (first, columns, panel) in right.iter().filter(|_| left.rows > 0) {
            let values = &mut into[first..];
            tile::columns(left.values, &starts, left.rows, panel, Into { values, stride, columns, accumulate });
        }
    }
}

/// Rows of the operands per partial sum; the sums are then added up. Bits depend on it.
pub(crate) const ROWS_PER_SUM: usize = 512;

/// `out (M, N) = leftᵀ right`, for `left` (K, M) row-major and any `right` (K, N), of which `panels(rows)` packs some
/// rows. Every gradient of a weight has this form.
pub(crate) fn transposed_product<T: Number>(
    left: &[T],
    (depth, rows, columns): (usize, usize, usize),
    panels: impl Fn(std::ops::Range<usize>) -> Panels<T>,
) -> Vec<T> {
    let mut out = if depth == 0 { vec![T::ZERO; rows * columns] } else { unwritten(rows * columns) };
    let at_once = block_for_threads(rows, 1, 8);
    for first in (0..depth).step_by(ROWS_PER_SUM) {
        let length = ROWS_PER_SUM.min(depth - first);
        let starts: Vec<usize> = (0..length).map(|row| row * rows).collect();
        let right = panels(first..first + length);
        each_chunk(
            &mut out,
            at_once * columns,
            || (),
            |(), number, out| {
                let left = &left[first * rows + number * at_once..];
                let height = out.len() / columns;
                for (column, count, panel) in right.iter() {
                    let into =
                        Into { values: &mut out[column..], stride: columns, columns: count, accumulate: first > 0 };
                    tile::columns(left, &starts, height, panel, into);
                }
            },
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(left: &[f64], right: &[f64], (m, k, n): (usize, usize, usize)) -> Vec<f64> {
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                out[i * n + j] = (0..k).map(|l| left[i * k + l] * right[l * n + j]).sum();
            }
        }
        out
    }

    fn transpose(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
        (0..columns).flat_map(|j| (0..rows).map(move |i| values[i * columns + j])).collect()
    }

    #[test]
    fn products_agree_with_three_loops_for_every_layout() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (64, 9, 49), (17, 130, 33), (1, 40, 8), (8, 40, 1)] {
            let left: Vec<f64> = (0..m * k).map(|i| ((i * 37 % 101) as f64 - 50.0) / 50.0).collect();
            let right: Vec<f64> = (0..k * n).map(|i| ((i * 53 % 97) as f64 - 48.0) / 48.0).collect();
            let expected = naive(&left, &right, (m, k, n));
            let (left_t, right_t) = (transpose(&left, m, k), transpose(&right, k, n));
            for a in [View::new(&left, m, k), View::new(&left_t, k, m).transposed()] {
                for b in [View::new(&right, k, n), View::new(&right_t, n, k).transposed()] {
                    let mut out = vec![1.0; m * n];
                    multiply(&mut out, false, a, b);
                    multiply(&mut out, true, a, b);
                    for (got, want) in out.iter().zip(&expected) {
                        assert!((got - 2.0 * want).abs() < 1e-12, "{m} × {k} × {n}: {got} for {}", 2.0 * want);
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_inner_dimension_gives_zeros() {
        let mut out = vec![7.0f32; 4];
        multiply(&mut out, false, View::new(&[], 2, 0), View::new(&[], 0, 2));
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "a 2 × 3 view with stride 3 over 5 values")]
    fn a_view_never_reaches_past_its_slice() {
        let _ = View::new(&[0.0f32; 5], 2, 3);
    }
}
