//! Work in blocks whose size does not depend on the number of threads, so the bits do not depend on it either.
//!
//! The blocks run on the pool that the caller [names](on_threads_of), otherwise on the pool that the caller is in.
//! Small work runs on the caller's own thread, one block after the other.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;

/// Work that touches fewer numbers than this is not shared: the hand-over to other threads would cost more than it
/// gains. It is a few hundred microseconds of work. A hand-over takes ten, and a hundred on a busy machine.
const WORTH_SHARING: usize = 1 << 20;

/// The number of multiplications in a matrix product that take as long as touching one number.
pub(crate) const PER_TOUCH: usize = 4;

thread_local! {
    static NAMED: RefCell<Option<Arc<ThreadPool>>> = const { RefCell::new(None) };
}

/// Runs `work` on this thread, and its larger linear algebra on the threads of `pool`. [`ThreadPool::install`] would
/// move everything to the pool.
pub fn on_threads_of<R>(pool: &Arc<ThreadPool>, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Arc<ThreadPool>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            NAMED.set(self.0.take());
        }
    }
    let _restore = Restore(NAMED.replace(Some(Arc::clone(pool))));
    work()
}

/// `length` divided into ranges of `unit`. The last one has `unit` to `2 · unit − 1`; lengths below two units form one
/// range.
pub(crate) fn ranges(length: usize, unit: usize) -> Vec<Range<usize>> {
    let count = (length / unit).max(1);
    (0..count).map(|i| i * unit..if i + 1 == count { length } else { (i + 1) * unit }).collect()
}

/// `values`, rows of `width`, split at these ranges of rows, which follow one another from the first row to the last.
pub(crate) fn split_rows<'a, T>(mut values: &'a mut [T], width: usize, rows: &[Range<usize>]) -> Vec<&'a mut [T]> {
    let mut blocks = Vec::with_capacity(rows.len());
    for range in rows {
        let (block, rest) = values.split_at_mut(range.len() * width);
        blocks.push(block);
        values = rest;
    }
    blocks
}

/// The result of `work` for each block, in order. `touched` is how many numbers all blocks touch together.
pub(crate) fn each<P: Send, R: Send>(blocks: Vec<P>, touched: usize, work: impl Fn(P) -> R + Sync + Send) -> Vec<R> {
    each_with(blocks, touched, || (), |(), block| work(block))
}

/// [`each`] with scratch memory that a thread reuses from block to block. No result may depend on its contents.
pub(crate) fn each_with<P: Send, S, R: Send>(
    blocks: Vec<P>,
    touched: usize,
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, P) -> R + Sync + Send,
) -> Vec<R> {
    if blocks.len() > 1 && touched >= WORTH_SHARING {
        let named = NAMED.with_borrow(Clone::clone);
        let threads = named.as_ref().map_or_else(rayon::current_num_threads, |pool| pool.current_num_threads());
        if threads > 1 {
            let shared_out = || blocks.into_par_iter().map_init(scratch, work).collect();
            return match named {
                Some(pool) => pool.install(shared_out),
                None => shared_out(),
            };
        }
    }
    let mut scratch = scratch();
    blocks.into_iter().map(|block| work(&mut scratch, block)).collect()
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
    fn results_come_in_the_order_of_the_blocks() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("three threads");
        let expected: Vec<usize> = (0..1000).map(|i| i * i).collect();
        let squares = |touched| each((0..1000).collect(), touched, |i: usize| i * i);
        for touched in [0, usize::MAX] {
            assert_eq!(pool.install(|| squares(touched)), expected);
        }
        let pool = Arc::new(pool);
        assert_eq!(on_threads_of(&pool, || squares(usize::MAX)), expected);
    }

    #[test]
    fn large_work_runs_on_the_named_threads_and_small_work_here() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).thread_name(|_| "named".to_owned()).build();
        let pool = Arc::new(pool.expect("two threads"));
        let names = |touched| {
            each(vec![(); 8], touched, |()| std::thread::current().name().map(str::to_owned))
                .into_iter()
                .all(|name| name.as_deref() == Some("named"))
        };
        on_threads_of(&pool, || {
            assert!(names(usize::MAX));
            assert!(!names(0));
        });
        assert!(!names(usize::MAX), "the pool is used for the work alone");
    }
}
