//! Matrix products over slices. One thread each, so that bits depend on the shape alone.

use super::number::Number;

/// A matrix laid over a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T: Number> View<'a, T> {
    /// Row-major, without gaps.
    pub(crate) fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Row-major, each row beginning `row_stride` values after the one before.
    ///
    /// # Panics
    /// When `values` is too short.
    pub(crate) fn strided(values: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        let end = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
        assert!(end <= values.len(), "a {rows} × {columns} view with stride {row_stride} over {} values", values.len());
        Self { values, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same values with rows for columns.
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

/// `into = left right`, or `into += left right` with `accumulate`; `into` is row-major without gaps.
///
/// # Panics
/// When the shapes do not fit.
pub(crate) fn multiply<T: Number>(into: &mut [T], accumulate: bool, left: View<'_, T>, right: View<'_, T>) {
    assert_eq!(left.columns, right.rows, "inner dimensions differ");
    assert_eq!(into.len(), left.rows * right.columns, "the product does not fit its destination");
    if into.is_empty() {
        return;
    }
    let stride = |n: usize| isize::try_from(n).expect("no slice is longer than isize::MAX");
    // SAFETY: a `View` is only made with every element inside its slice, `into` holds rows × columns values and, being
    // borrowed mutably, overlaps neither; the strides passed are theirs.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            into.as_mut_ptr(),
            1,
            stride(right.columns),
            accumulate,
            left.values.as_ptr(),
            stride(left.column_stride),
            stride(left.row_stride),
            right.values.as_ptr(),
            stride(right.column_stride),
            stride(right.row_stride),
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
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
