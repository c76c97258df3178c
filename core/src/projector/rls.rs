//! Recursive least squares: one rank-1 fold.

use crate::linalg::{Matrix, Real, dot};

/// k = P h̄; P ← P − k kᵀ / (α + h̄ᵀ k), for P (`s × s`) and h̄ (`s`).
///
/// Written as (kᵢ kⱼ) · (1 / (α + h̄ᵀ k)), which is symmetric to the last bit, so that P stays so for ever: with
/// (kᵢ / …) kⱼ the asymmetry of `f32` grows with each fold. h̄ᵀ k is not negative as P is positive semidefinite; where
/// rounding makes it so it is taken for 0.
pub(super) fn fold<T: Real>(projector: &mut Matrix<T>, mean_features: &[T], alpha: f64) {
    let k: Vec<T> = projector.iter_rows().map(|row| dot(row, mean_features)).collect();
    let along = dot(mean_features, &k).to_f64().max(0.0);
    let inverse = T::from_f64((alpha + along).recip());
    for (i, &k_i) in k.iter().enumerate() {
        for (p, &k_j) in projector.row_mut(i).iter_mut().zip(&k) {
            *p = *p - (k_i * k_j) * inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn row(stream: &mut rng::Stream, width: usize) -> Vec<f64> {
        (0..width).map(|_| rng::normal(stream) + 0.5).collect()
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
    fn the_projector_is_symmetric_to_the_last_bit_after_ten_thousand_folds_of_f32() {
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
    fn folding_one_direction_for_ever_ends_in_the_projection_off_it() {
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
