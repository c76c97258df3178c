//! Recursive least squares: rank-1 folds.

use serde::{Deserialize, Serialize};

use crate::linalg::blocks::{each, ranges, split_rows};
use crate::linalg::{Matrix, Real, dot, dot_once, four_dots, vectorised};

/// The mean features of one step and the regulariser that they are folded with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fold<T> {
    /// h̄, `s`.
    pub mean_features: Vec<T>,
    /// α, above 0.
    pub alpha: f64,
}

/// k = P h̄; P ← P − k kᵀ / (α + h̄ᵀ k) for each step in order, for P (`s × s`) and h̄ (`s`).
///
/// It is computed as (kᵢ kⱼ) · (1 / (α + h̄ᵀ k)), which is symmetric to the last bit, so P stays symmetric. With (kᵢ /
/// …) kⱼ the asymmetry of `f32` would grow with each fold. h̄ᵀ k is not negative because P is positive semidefinite; a
/// negative value from rounding counts as 0.
///
/// P is read once for the first k. Then each step reads and writes P once, and computes the next step's k in the same
/// pass.
pub(super) fn fold<T: Real>(projector: &mut Matrix<T>, steps: &[Fold<T>]) {
    let mut k = match steps.first() {
        Some(first) if projector.cols() > 0 => times(projector, &first.mean_features),
        _ => return,
    };
    for (i, step) in steps.iter().enumerate() {
        let along = dot(&step.mean_features, &k).to_f64().max(0.0);
        let inverse = T::from_f64((step.alpha + along).recip());
        let next = steps.get(i + 1).map(|step| step.mean_features.as_slice());
        k = take_away(projector, &k, inverse, next);
    }
}

/// Numbers of P that a thread processes at a time, in whole rows.
const BLOCK: usize = 1 << 14;

/// The largest P, in bytes, that stays in a core's own cache between two folds.
const NEAR: usize = 1 << 20;

/// Rows whose products with a vector are computed at once.
const ROWS: usize = 4;

fn rows_per_block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1).next_multiple_of(ROWS)
}

/// P h.
///
/// # Panics
/// If h is not `s` wide.
fn times<T: Real>(projector: &Matrix<T>, h: &[T]) -> Vec<T> {
    let width = projector.cols();
    assert_eq!(h.len(), width, "mean features as wide as the head");
    let near = size_of_val(projector.as_slice()) <= NEAR;
    let mut k = vec![T::ZERO; projector.rows()];
    let rows = ranges(k.len(), rows_per_block(width));
    let blocks = rows.iter().cloned().zip(split_rows(&mut k, 1, &rows)).collect();
    each(blocks, projector.as_slice().len(), |(rows, k)| {
        let p = &projector.as_slice()[rows.start * width..rows.end * width];
        vectorised(
            #[inline(always)]
            || {
                if near {
                    rows_times(p, h, k);
                } else {
                    // One row after the other: memory delivers one stream faster than four.
                    k.iter_mut().zip(p.chunks_exact(width)).for_each(|(k, row)| *k = dot_once(row, h));
                }
            },
        );
    });
    k
}

/// P ← P − k kᵀ · inverse. Returns P h for the new P and the `next` h, or nothing without a `next`.
fn take_away<T: Real>(projector: &mut Matrix<T>, k: &[T], inverse: T, next: Option<&[T]>) -> Vec<T> {
    let width = projector.cols();
    let rows = ranges(projector.rows(), rows_per_block(width));
    let mut product = vec![T::ZERO; if next.is_some() { projector.rows() } else { 0 }];
    let products = if next.is_some() { split_rows(&mut product, 1, &rows) } else { vec![] };
    let touched = projector.as_slice().len();
    let mut products = products.into_iter();
    let blocks = rows.iter().zip(split_rows(projector.as_mut_slice(), width, &rows));
    let blocks = blocks.map(|(rows, p)| (&k[rows.clone()], p, products.next().unwrap_or_default())).collect();
    each(blocks, touched, |(k_rows, p, product)| {
        vectorised(
            #[inline(always)]
            || {
                let mut products = product.chunks_mut(ROWS);
                for (p, k_rows) in p.chunks_mut(ROWS * width).zip(k_rows.chunks(ROWS)) {
                    for (row, &k_i) in p.chunks_exact_mut(width).zip(k_rows) {
                        for (p, &k_j) in row.iter_mut().zip(k) {
                            *p = *p - (k_i * k_j) * inverse;
                        }
                    }
                    if let (Some(h), Some(product)) = (next, products.next()) {
                        rows_times(p, h, product);
                    }
                }
            },
        );
    });
    product
}

/// The product of each row of `p` with `h`, for rows in the cache. It has the bits of [`dot`].
#[inline(always)]
fn rows_times<T: Real>(p: &[T], h: &[T], out: &mut [T]) {
    let width = h.len();
    let (fours, rest) = out.as_chunks_mut::<ROWS>();
    let (p, p_rest) = p.split_at(fours.len() * ROWS * width);
    for (four, p) in fours.iter_mut().zip(p.chunks_exact(ROWS * width)) {
        *four = four_dots([0, 1, 2, 3].map(|i| &p[i * width..(i + 1) * width]), h);
    }
    for (one, p) in rest.iter_mut().zip(p_rest.chunks_exact(width)) {
        *one = dot_once(p, h);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn row(stream: &mut rng::Stream, width: usize) -> Vec<f64> {
        (0..width).map(|_| rng::normal(stream) + 0.5).collect()
    }

    fn fold<T: Real>(projector: &mut Matrix<T>, mean_features: &[T], alpha: f64) {
        super::fold(projector, &[Fold { mean_features: mean_features.to_vec(), alpha }]);
    }

    fn folded(rows: &[Vec<f64>], alpha: f64) -> Matrix<f64> {
        let mut projector = Matrix::identity(rows[0].len());
        for row in rows {
            fold(&mut projector, row, alpha);
        }
        projector
    }

    fn distance(a: &Matrix<f64>, b: &Matrix<f64>) -> f64 {
        a.as_slice().iter().zip(b.as_slice()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn the_order_of_folds_does_not_matter() {
        let mut stream = rng::stream(1, &["order".into()]);
        let mut rows: Vec<Vec<f64>> = (0..12).map(|_| row(&mut stream, 9)).collect();
        let one = folded(&rows, 0.3);
        rng::shuffle(&mut stream, &mut rows);
        assert!(distance(&one, &folded(&rows, 0.3)) < 1e-12);
    }

    #[test]
    fn ten_thousand_folds_of_f32_keep_the_projector_symmetric() {
        let mut stream = rng::stream(2, &["symmetry".into()]);
        let mut projector = Matrix::<f32>::identity(24);
        for _ in 0..10_000 {
            let row: Vec<f32> = row(&mut stream, 24).into_iter().map(|v| v as f32).collect();
            fold(&mut projector, &row, 0.1);
        }
        assert_eq!(projector.transpose(), projector);
        assert!(projector.first_not_finite().is_none());
    }

    #[test]
    fn every_fold_takes_away_and_never_below_nothing() {
        let mut stream = rng::stream(3, &["bounds".into()]);
        let mut projector = Matrix::<f64>::identity(6);
        let probe = row(&mut stream, 6);
        let measure = |p: &Matrix<f64>| probe.iter().zip(p.iter_rows()).map(|(x, r)| x * dot(r, &probe)).sum::<f64>();
        let mut before = (projector.trace(), measure(&projector));
        for _ in 0..50 {
            fold(&mut projector, &row(&mut stream, 6), 0.5);
            let after = (projector.trace(), measure(&projector));
            assert!(after.0 < before.0 && after.1 <= before.1 && after.1 >= 0.0);
            before = after;
        }
    }

    #[test]
    fn folding_one_direction_often_ends_in_the_projection_off_it() {
        let direction = [0.6, 0.0, 0.8];
        let mut projector = Matrix::identity(3);
        for _ in 0..10_000 {
            fold(&mut projector, &direction, 0.1);
        }
        let mut expected = Matrix::identity(3);
        for i in 0..3 {
            for j in 0..3 {
                expected.row_mut(i)[j] -= direction[i] * direction[j];
            }
        }
        assert!(distance(&projector, &expected) < 1e-4);
        assert!(distance(&projector.times(&projector), &projector) < 1e-4, "a projection is idempotent");
    }

    #[test]
    fn a_direction_that_is_folded_away_stays_away() {
        let mut projector = Matrix::<f32>::identity(2);
        for _ in 0..1000 {
            fold(&mut projector, &[1e9, 0.0], 0.01);
        }
        assert_eq!(projector.row(1), [0.0, 1.0]);
        assert!(projector.row(0)[0].abs() < 1e-6);
    }
}
