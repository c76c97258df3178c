//! Work cut into pieces whose size never depends on how many threads there are, so that neither do the bits.
//!
//! The pieces run on the threads of the pool that the caller is in (`rayon::ThreadPool::install`), or one after the other on the
//! caller's own where there is too little to do.

use std::ops::Range;

use rayon::prelude::*;

/// Below so many numbers, each touched once, the hand-over to other threads costs more than it gains.
const WORTH_SHARING: usize = 1 << 16;

/// `length` cut into ranges of `unit`, but for the last one, which is longer: `unit` to `2 · unit − 1`. One range where there is
/// less than two units.
pub(crate) fn ranges(length: usize, unit: usize) -> Vec<Range<usize>> {
    let count = (length / unit).max(1);
    (0..count).map(|i| i * unit..if i + 1 == count { length } else { (i + 1) * unit }).collect()
}

/// `values`, rows of `width`, cut at these ranges of rows, which follow one another from the first row to the last.
pub(crate) fn split_rows<'a, T>(mut values: &'a mut [T], width: usize, rows: &[Range<usize>]) -> Vec<&'a mut [T]> {
    let mut pieces = Vec::with_capacity(rows.len());
    for range in rows {
        let (piece, rest) = values.split_at_mut(range.len() * width);
        pieces.push(piece);
        values = rest;
    }
    pieces
}

/// What `work` makes of each piece, in order. `touched` is how many numbers all the pieces touch together.
pub(crate) fn each<P: Send, R: Send>(pieces: Vec<P>, touched: usize, work: impl Fn(P) -> R + Sync + Send) -> Vec<R> {
    each_with(pieces, touched, || (), |(), piece| work(piece))
}

/// [`each`] with memory that a thread uses for one piece after the other, and that carries nothing from one to the next.
pub(crate) fn each_with<P: Send, S, R: Send>(
    pieces: Vec<P>,
    touched: usize,
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, P) -> R + Sync + Send,
) -> Vec<R> {
    if pieces.len() > 1 && touched >= WORTH_SHARING && rayon::current_num_threads() > 1 {
        pieces.into_par_iter().map_init(scratch, work).collect()
    } else {
        let mut scratch = scratch();
        pieces.into_iter().map(|piece| work(&mut scratch, piece)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_everything_once_and_none_is_short() {
        for length in [0, 1, 7, 8, 15, 16, 17, 100] {
            let ranges = ranges(length, 8);
            assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), (0..length).collect::<Vec<_>>());
            assert!(ranges.len() == 1 || ranges.iter().all(|range| (8..16).contains(&range.len())));
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_pieces() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("three threads");
        let expected: Vec<usize> = (0..1000).map(|i| i * i).collect();
        for touched in [0, usize::MAX] {
            assert_eq!(pool.install(|| each((0..1000).collect(), touched, |i: usize| i * i)), expected);
        }
    }
}
