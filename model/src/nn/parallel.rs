//! Work for threads, in blocks whose size does not depend on the number of threads, so the bits do not depend on it
//! either.

use rayon::prelude::*;

use super::number::Number;
use super::vector::vectorised;

/// Below this number of values, a hand-over to other threads costs more than it gains.
const WORTH_SHARING: usize = 1 << 14;

/// Gives each run of `length` values to `work`, with its number; the last run may be shorter. `scratch` creates memory
/// that a thread reuses between runs. No result may depend on its contents.
pub(crate) fn each_chunk<T: Number, S>(
    values: &mut [T],
    length: usize,
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, usize, &mut [T]) + Sync + Send,
) {
    if length == 0 {
        return;
    }
    if values.len() < WORTH_SHARING {
        let mut state = scratch();
        values.chunks_mut(length).enumerate().for_each(|(i, chunk)| work(&mut state, i, chunk));
    } else {
        values.par_chunks_mut(length).enumerate().for_each_init(scratch, |state, (i, chunk)| work(state, i, chunk));
    }
}

/// The length of blocks that divide `whole` into about `per_thread` blocks per thread, a multiple of `unit`. For work
/// whose bits do not depend on it.
pub(crate) fn block_for_threads(whole: usize, per_thread: usize, unit: usize) -> usize {
    whole.div_ceil(per_thread * rayon::current_num_threads()).next_multiple_of(unit)
}

/// Gives each run of `length` values of two slices of the same length to `work`, with its number.
pub(crate) fn each_pair<T: Send, U: Send>(
    first: &mut [T],
    second: &mut [U],
    length: usize,
    work: impl Fn(usize, &mut [T], &mut [U]) + Sync + Send,
) {
    let pairs = first.par_chunks_mut(length).zip(second.par_chunks_mut(length));
    pairs.enumerate().for_each(|(i, (first, second))| work(i, first, second));
}

/// Gives each of `blocks` to `work`, with its number.
pub(crate) fn each_block<P: Send>(blocks: Vec<P>, work: impl Fn(usize, P) + Sync + Send) {
    blocks.into_par_iter().enumerate().for_each(|(i, block)| work(i, block));
}

/// [`each_chunk`], and `Σ` of the `width` sums that `work` leaves for each chunk, added in the order of the chunks.
pub(crate) fn each_chunk_sum<T: Number>(
    values: &mut [T],
    length: usize,
    width: usize,
    work: impl Fn(usize, &mut [T], &mut [f64]) + Sync + Send,
) -> Vec<f64> {
    let one = |(i, chunk): (usize, &mut [T])| {
        let mut sums = vec![0.0; width];
        work(i, chunk, &mut sums);
        sums
    };
    total(values.par_chunks_mut(length.max(1)).enumerate().map(one).collect(), width)
}

/// `Σ_group work(group)`, each a vector of `length` values, added in the order of the groups.
pub(crate) fn sum_of_groups<T: Number>(
    groups: usize,
    length: usize,
    work: impl Fn(usize, &mut [T]) + Sync + Send,
) -> Vec<T> {
    let partials: Vec<Vec<T>> = (0..groups)
        .into_par_iter()
        .map(|group| {
            let mut partial = vec![T::ZERO; length];
            work(group, &mut partial);
            partial
        })
        .collect();
    total(partials, length)
}

/// The number of rows per group, whose sums are then added up. Bits depend on it.
const ROWS_PER_GROUP: usize = 256;

/// The sum of the rows of `width` numbers.
pub(crate) fn sum_of_rows<T: Number>(values: &[T], width: usize) -> Vec<f64> {
    let group = ROWS_PER_GROUP * width.max(1);
    sum_of_groups(values.len().div_ceil(group), width, |number, sums: &mut [f64]| {
        let rows = &values[number * group..values.len().min((number + 1) * group)];
        vectorised(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(width) {
                    for (sum, value) in sums.iter_mut().zip(row) {
                        *sum += value.to_f64();
                    }
                }
            },
        );
    })
}

fn total<T: Number>(partials: Vec<Vec<T>>, length: usize) -> Vec<T> {
    let mut partials = partials.into_iter();
    let mut total = partials.next().unwrap_or_else(|| vec![T::ZERO; length]);
    for partial in partials {
        total.iter_mut().zip(partial).for_each(|(t, p)| *t += p);
    }
    total
}

/// Splits `values` into consecutive blocks of `width · (ends[i + 1] − ends[i])` values.
///
/// # Panics
/// If `ends` is not ascending or exceeds the number of rows.
pub(crate) fn split_at_rows<'a, T>(mut values: &'a mut [T], width: usize, ends: &[usize]) -> Vec<&'a mut [T]> {
    let mut blocks = Vec::with_capacity(ends.len().saturating_sub(1));
    for pair in ends.windows(2) {
        let (block, rest) = values.split_at_mut(width * (pair[1] - pair[0]));
        blocks.push(block);
        values = rest;
    }
    blocks
}
