//! Dense matrices and the few operations that the head and the projector need.
//!
//! Owns: [`Real`] (`f32`, `f64`), [`Matrix`], products, norms. The threads of the caller's rayon pool share large ones,
//! in blocks that are the same for any number of threads. So the same input gives the same bits. There are no views, no
//! broadcasting, and no decompositions but Cholesky.

pub(crate) mod blocks;
mod cholesky;
mod matrix;
mod product;
mod real;
mod sums;
mod vector;

pub use blocks::on_threads_of;
pub(crate) use cholesky::Cholesky;
pub use matrix::{Matrix, ShapeError};
pub use real::Real;
pub(crate) use sums::{all_finite, in_halves, sum_of_squares, sum_of_squares_in_kind};
pub(crate) use vector::vectorised;

/// Σ aᵢ bᵢ in 16 interleaved partial sums that are added up in a fixed order: The bits do not depend on where the
/// slices are in memory, or on what else is computed.
///
/// # Panics
/// If the lengths differ.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    assert_eq!(a.len(), b.len(), "a dot product needs two vectors of the same length");
    vectorised(
        #[inline(always)]
        || dot_once(a, b),
    )
}

/// Partial sums of a dot product. Bits depend on it.
const LANES: usize = 16;

/// lanes ← lanes + x y.
#[inline(always)]
fn add_products<T: Real>(lanes: &mut [T; LANES], x: &[T; LANES], y: &[T; LANES]) {
    for i in 0..LANES {
        lanes[i] = lanes[i] + x[i] * y[i];
    }
}

/// The sum of the lanes, after the products of the last, incomplete chunk are added to them.
#[inline(always)]
fn finish<T: Real>(mut lanes: [T; LANES], x: &[T], y: &[T]) -> T {
    for (lane, (&x, &y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
        *lane = *lane + x * y;
    }
    in_halves(lanes)
}

/// [`dot`], to be compiled for the processor's vectors.
#[inline(always)]
pub(crate) fn dot_once<T: Real>(a: &[T], b: &[T]) -> T {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [T::ZERO; LANES];
    for (x, y) in a.iter().zip(b) {
        add_products(&mut lanes, x, y);
    }
    finish(lanes, a_rest, b_rest)
}

/// [`dot`] of each of four vectors with `b`, all of the same length. It gives the same bits as four calls, in less
/// time.
#[inline(always)]
pub(crate) fn four_dots<T: Real>(vectors: [&[T]; 4], b: &[T]) -> [T; 4] {
    let (b, b_rest) = b.as_chunks::<LANES>();
    // Each has its own variables: a compiler leaves an array of sums in memory.
    let [(x0, rest0), (x1, rest1), (x2, rest2), (x3, rest3)] = vectors.map(|vector| vector.as_chunks::<LANES>());
    let [mut sum0, mut sum1, mut sum2, mut sum3] = [[T::ZERO; LANES]; 4];
    for ((((x0, x1), x2), x3), y) in x0.iter().zip(x1).zip(x2).zip(x3).zip(b) {
        add_products(&mut sum0, x0, y);
        add_products(&mut sum1, x1, y);
        add_products(&mut sum2, x2, y);
        add_products(&mut sum3, x3, y);
    }
    [finish(sum0, rest0, b_rest), finish(sum1, rest1, b_rest), finish(sum2, rest2, b_rest), finish(sum3, rest3, b_rest)]
}

/// The Euclidean norm, summed in `f64`, in an order that depends only on the length.
pub fn norm<T: Real>(values: &[T]) -> f64 {
    sum_of_squares(values).sqrt()
}

/// The position of the first greatest value; 0 if there are no values.
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
    let mut probabilities = vec![0.0; logits.len()];
    let (_, log_sum) = softmax_into(logits, &mut probabilities);
    (probabilities, log_sum)
}

/// [`softmax`], written to `probabilities`. Returns the greatest logit, and ln Σ exp z.
pub(crate) fn softmax_into<T: Real>(logits: &[T], probabilities: &mut [f64]) -> (f64, f64) {
    let max = vectorised(
        #[inline(always)]
        || greatest(logits),
    );
    let max = max.to_f64();
    let mut sum = 0.0;
    for (p, z) in probabilities.iter_mut().zip(logits) {
        *p = (z.to_f64() - max).exp();
        sum += *p;
    }
    for p in probabilities {
        *p /= sum;
    }
    (max, max + sum.ln())
}

/// The greatest value, −∞ if there is none. NaNs are ignored.
#[inline(always)]
fn greatest<T: Real>(values: &[T]) -> T {
    const LANES: usize = 16;
    let of_two = |a: T, b: T| if b > a { b } else { a };
    let mut lanes = [T::from_f64(f64::NEG_INFINITY); LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, x)| *lane = of_two(*lane, *x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane = of_two(*lane, *x));
    lanes.into_iter().fold(lanes[0], of_two)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_is_linear_and_independent_of_alignment() {
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
