//! The closed form over a window of rows.

use super::form::Form;
use crate::linalg::{Cholesky, Matrix, Real};

/// P = (I + (1/α) Rᵀ R)⁻¹ (`s × s`) for the rows R (`n × s`), computed in `f64`.
///
/// For n < s by Woodbury: P = I − Xᵀ X with L Lᵀ = α I + R Rᵀ (`n × n`) and L X = R; P itself is not computed, because
/// products with P are cheaper without it. Otherwise P = Xᵀ X with L Lᵀ = I + (1/α) Rᵀ R and L X = I.
pub(super) fn closed_form<T: Real>(rows: &[&[T]], alpha: f64, width: usize) -> Form<T> {
    let flat = rows.iter().flat_map(|row| row.iter().map(|v| v.to_f64())).collect();
    let rows = Matrix::from_vec(rows.len(), width, flat).expect("every row of a window is as wide as the head");
    if rows.rows() < width {
        Form::without(Matrix::from_f64(&by_woodbury(rows, alpha)))
    } else {
        Form::Dense(Matrix::from_f64(&directly(&rows, alpha)))
    }
}

/// I − Xᵀ X, summed in `f64`, symmetric to the last bit.
pub(super) fn dense<T: Real>(x: &Matrix<T>) -> Matrix<T> {
    let x = x.to_f64();
    let taken = x.transposed_times(&x);
    Matrix::from_f64(&symmetric(x.cols(), |i, j| f64::from(u8::from(i == j)) - taken.row(i)[j]))
}

/// X.
fn by_woodbury(rows: Matrix<f64>, alpha: f64) -> Matrix<f64> {
    let mut gram = rows.times_transposed(&rows);
    for i in 0..gram.rows() {
        gram.row_mut(i)[i] += alpha;
    }
    Cholesky::of(gram).solve_lower(rows)
}

fn directly(rows: &Matrix<f64>, alpha: f64) -> Matrix<f64> {
    let width = rows.cols();
    let mut gram = rows.transposed_times(rows).map(|v| v / alpha);
    for i in 0..width {
        gram.row_mut(i)[i] += 1.0;
    }
    let x = Cholesky::of(gram).solve_lower(Matrix::identity(width));
    let inverse = x.transposed_times(&x);
    symmetric(width, |i, j| inverse.row(i)[j])
}

/// The symmetric matrix with this lower triangle.
fn symmetric(size: usize, lower: impl Fn(usize, usize) -> f64) -> Matrix<f64> {
    let mut out = Matrix::zeros(size, size);
    for i in 0..size {
        for j in 0..=i {
            let value = lower(i, j);
            out.row_mut(i)[j] = value;
            out.row_mut(j)[i] = value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Fold;
    use super::*;
    use crate::rng;

    fn example(n: usize, width: usize) -> Vec<Vec<f64>> {
        let mut stream = rng::stream(5, &["window".into()]);
        (0..n).map(|_| (0..width).map(|_| rng::normal(&mut stream) + 0.5).collect()).collect()
    }

    fn form(rows: &[Vec<f64>], alpha: f64, width: usize) -> Matrix<f64> {
        closed_form(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), alpha, width).into_matrix()
    }

    #[test]
    fn it_is_the_inverse_that_it_says_for_few_rows_and_for_many() {
        for n in [1, 3, 6, 7, 40] {
            let rows = example(n, 7);
            let mut a = Matrix::<f64>::identity(7);
            for row in &rows {
                for i in 0..7 {
                    for j in 0..7 {
                        a.row_mut(i)[j] += row[i] * row[j] / 0.1;
                    }
                }
            }
            let product = form(&rows, 0.1, 7).times(&a);
            for (x, y) in product.as_slice().iter().zip(Matrix::<f64>::identity(7).as_slice()) {
                assert!((x - y).abs() < 1e-10, "{n} rows: {x} is not {y}");
            }
        }
    }

    #[test]
    fn it_is_what_folding_the_rows_one_by_one_gives() {
        let rows = example(9, 12);
        let mut folded = Matrix::identity(12);
        for row in &rows {
            super::super::rls::fold(&mut folded, &[Fold { mean_features: row.clone(), alpha: 0.05 }]);
        }
        for (x, y) in form(&rows, 0.05, 12).as_slice().iter().zip(folded.as_slice()) {
            assert!((x - y).abs() < 1e-11);
        }
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_p_is_symmetric() {
        let mut rows = example(5, 8);
        let one = form(&rows, 0.1, 8);
        rows.reverse();
        for (x, y) in form(&rows, 0.1, 8).as_slice().iter().zip(one.as_slice()) {
            assert!((x - y).abs() < 1e-12);
        }
        assert_eq!(one.transpose(), one);
    }

    #[test]
    fn nothing_remembered_is_the_identity() {
        assert_eq!(form(&[], 0.1, 4), Matrix::identity(4));
    }
}
