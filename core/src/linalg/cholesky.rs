//! A = L Lᵀ of a symmetric positive definite matrix, in `f64`.

use super::{Matrix, vectorised};

/// The lower triangle L with L Lᵀ = A.
pub(crate) struct Cholesky(Matrix<f64>);

impl Cholesky {
    /// Decomposes a symmetric positive definite n × n matrix; its upper triangle is not read.
    pub(crate) fn of(mut a: Matrix<f64>) -> Self {
        for i in 0..a.rows() {
            for j in 0..=i {
                let below: f64 = a.row(i)[..j].iter().zip(&a.row(j)[..j]).map(|(x, y)| x * y).sum();
                let rest = a.row(i)[j] - below;
                let value = if i == j { rest.sqrt() } else { rest / a.row(j)[j] };
                a.row_mut(i)[j] = value;
            }
        }
        Self(a)
    }

    /// X with L X = B, (n × m).
    pub(crate) fn solve_lower(&self, mut b: Matrix<f64>) -> Matrix<f64> {
        let (n, m) = b.shape();
        for i in 0..n {
            let (above, from_here) = b.as_mut_slice().split_at_mut(i * m);
            let row = &mut from_here[..m];
            vectorised(
                #[inline(always)]
                || {
                    for (j, &factor) in self.0.row(i)[..i].iter().enumerate() {
                        for (x, y) in row.iter_mut().zip(&above[j * m..(j + 1) * m]) {
                            *x -= factor * y;
                        }
                    }
                    for x in row.iter_mut() {
                        *x /= self.0.row(i)[i];
                    }
                },
            );
        }
        b
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solving_undoes_the_product_with_the_triangle() {
        let a = Matrix::from_vec(3, 3, vec![4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0]).expect("nine elements");
        let inverse_lower = Cholesky::of(a.clone()).solve_lower(Matrix::identity(3));
        let product = inverse_lower.transposed_times(&inverse_lower).times(&a);
        for (x, y) in product.as_slice().iter().zip(Matrix::<f64>::identity(3).as_slice()) {
            assert!((x - y).abs() < 1e-14);
        }
    }
}
