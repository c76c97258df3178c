//! Dense matrices and the few operations that the head and the projector need.
//!
//! Owns: [`Real`] (`f32`, `f64`), [`Matrix`], products, norms. Every product runs on one thread, so that the same
//! numbers go in and the same bits come out. Does not do: views, broadcasting, decompositions beyond Cholesky.

mod cholesky;
mod matrix;
mod product;
mod real;

pub(crate) use cholesky::Cholesky;
pub use matrix::{Matrix, ShapeError};
pub use real::Real;

/// Σ aᵢ bᵢ in 16 interleaved partial sums that are added up in a fixed order: the same bits wherever the slices lie in
/// memory and whatever is computed beside them.
///
/// # Panics
/// If the lengths differ.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    const LANES: usize = 16;
    assert_eq!(a.len(), b.len(), "a dot product needs two vectors of the same length");
    let mut lanes = [T::ZERO; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for (lane, (&x, &y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
            *lane = *lane + x * y;
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane = *lane + x * y;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = lanes[i] + lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The Euclidean norm, summed in `f64`.
pub fn norm<T: Real>(values: &[T]) -> f64 {
    values.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>().sqrt()
}

/// The position of the greatest value; of the first of them where several are equal, 0 where there is none.
pub fn argmax<T: Real>(values: &[T]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

/// softmax(z) and ln Σ exp z, in `f64` whatever the type of the logits. Finite for all finite z.
pub fn softmax<T: Real>(logits: &[T]) -> (Vec<f64>, f64) {
    let max = logits.iter().map(|z| z.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let mut probabilities: Vec<f64> = logits.iter().map(|z| (z.to_f64() - max).exp()).collect();
    let sum: f64 = probabilities.iter().sum();
    for p in &mut probabilities {
        *p /= sum;
    }
    (probabilities, max + sum.ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_is_linear_and_does_not_depend_on_where_its_vectors_lie() {
        let a: Vec<f32> = (0..101).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = (0..101).map(|i| (i as f32 * 0.11).cos()).collect();
        let doubled: Vec<f32> = a.iter().map(|x| 2.0 * x).collect();
        assert_eq!(dot(&doubled, &b).to_bits(), (2.0 * dot(&a, &b)).to_bits());
        let mut shifted = vec![0.0];
        shifted.extend(&a);
        assert_eq!(dot(&shifted[1..], &b).to_bits(), dot(&a, &b).to_bits());
    }

    #[test]
    fn softmax_is_invariant_to_a_shift_and_survives_extremes() {
        let (p, _) = softmax(&[1.0_f64, 2.0, 3.0]);
        let (q, _) = softmax(&[1001.0_f64, 1002.0, 1003.0]);
        for (a, b) in p.iter().zip(&q) {
            assert!((a - b).abs() < 1e-12);
        }
        let (p, log_sum) = softmax(&[f32::MAX, f32::MIN, 0.0]);
        assert_eq!(p, [1.0, 0.0, 0.0]);
        assert!(log_sum.is_finite());
    }

    #[test]
    fn the_first_of_equal_maxima_wins() {
        assert_eq!(argmax(&[1.0_f32, 3.0, 3.0]), 1);
        assert_eq!(argmax::<f32>(&[]), 0);
    }
}
