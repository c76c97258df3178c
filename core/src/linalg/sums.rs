//! Sums over many numbers in a fixed order that suits vector units and several threads.
//!
//! The numbers of a block go to its lanes in turn. Lanes are added up in halves, blocks in order.

use super::blocks::{each, ranges};
use super::real::Real;
use super::vector::vectorised;

/// Partial sums that are computed side by side. Bits depend on it.
const LANES: usize = 16;

/// Numbers whose sum is taken before the sums are added up. Bits depend on it.
const BLOCK: usize = 1 << 15;

/// The lanes added up in halves: lane 0 to lane 8, 1 to 9, and so on.
#[inline(always)]
pub(crate) fn in_halves<S: Real, const N: usize>(mut lanes: [S; N]) -> S {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = lanes[i] + lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Σ of `kind(x)²`.
#[inline(always)]
fn squares_of_block<T: Real, S: Real>(values: &[T], kind: impl Fn(T) -> S) -> S {
    let mut lanes = [S::ZERO; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            let value = kind(*value);
            *lane = *lane + value * value;
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        let value = kind(*value);
        *lane = *lane + value * value;
    }
    in_halves(lanes)
}

fn over_blocks<T: Real, S: Real>(values: &[T], of_block: impl Fn(&[T]) -> S + Sync + Send) -> S {
    if values.len() < 2 * BLOCK {
        return of_block(values);
    }
    let sums = each(ranges(values.len(), BLOCK), values.len(), |range| of_block(&values[range]));
    sums.into_iter().fold(S::ZERO, |sum, block| sum + block)
}

/// Σ x², in `f64`.
pub(crate) fn sum_of_squares<T: Real>(values: &[T]) -> f64 {
    over_blocks(values, |block| {
        vectorised(
            #[inline(always)]
            || squares_of_block(block, T::to_f64),
        )
    })
}

/// Σ x², in type `T`: finite only if all numbers are.
pub(crate) fn sum_of_squares_in_kind<T: Real>(values: &[T]) -> T {
    over_blocks(values, |block| {
        vectorised(
            #[inline(always)]
            || squares_of_block(block, |x| x),
        )
    })
}

/// Whether no number is infinite or NaN.
pub(crate) fn all_finite<T: Real>(values: &[T]) -> bool {
    let spoilt = over_blocks(values, |block| {
        vectorised(
            #[inline(always)]
            || {
                // 0 · x is 0, or NaN if x is infinite or NaN, and a NaN stays.
                let mut lanes = [T::ZERO; LANES];
                let (chunks, rest) = block.as_chunks::<LANES>();
                for chunk in chunks {
                    for (lane, value) in lanes.iter_mut().zip(chunk) {
                        *lane = *lane + *value * T::ZERO;
                    }
                }
                for (lane, value) in lanes.iter_mut().zip(rest) {
                    *lane = *lane + *value * T::ZERO;
                }
                in_halves(lanes)
            },
        )
    });
    spoilt == T::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 0.7).sin()).collect()
    }

    #[test]
    fn sums_of_squares_are_those_of_one_number_after_the_other() {
        for count in [0, 1, 15, 16, 17, 1000, 2 * BLOCK - 1, 2 * BLOCK, 3 * BLOCK + 5] {
            let values = example(count);
            let expected: f64 = values.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
            assert!((sum_of_squares(&values) - expected).abs() <= 1e-12 * expected, "{count}");
            assert!((f64::from(sum_of_squares_in_kind(&values)) - expected).abs() <= 1e-4 * expected, "{count}");
        }
    }

    #[test]
    fn one_number_that_is_not_finite_is_found_wherever_it_is() {
        let mut values = example(3 * BLOCK + 5);
        assert!(all_finite(&values));
        for (at, bad) in [(0, f32::NAN), (17, f32::INFINITY), (3 * BLOCK + 4, f32::NEG_INFINITY), (BLOCK, f32::NAN)] {
            let good = std::mem::replace(&mut values[at], bad);
            assert!(!all_finite(&values) && !sum_of_squares_in_kind(&values).is_finite());
            values[at] = good;
        }
        assert!(all_finite(&[f32::MAX; 40]) && !sum_of_squares_in_kind(&[f32::MAX; 40]).is_finite());
    }
}
