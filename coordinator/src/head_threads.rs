//! The threads that the heads of all jobs compute on. Only the coordinator uses them, so a step of the head does not
//! queue behind the encoders of workers in the same process.

use std::sync::Arc;

use antiphon_core::linalg::on_threads_of;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use tokio::runtime::{Handle, RuntimeFlavor};

/// The size of W or P above which a step takes so long that the thread's other tasks must not wait for it.
const LONG: usize = 1 << 20;

/// A pool of threads. Clones share it.
#[derive(Debug, Clone)]
pub struct HeadThreads(Arc<ThreadPool>);

impl HeadThreads {
    /// A pool of this many threads. 0 means one per core that this process may use, or `RAYON_NUM_THREADS`.
    ///
    /// # Errors
    /// If the system cannot start the threads.
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let pool =
            ThreadPoolBuilder::new().num_threads(threads).thread_name(|number| format!("head-{number}")).build()?;
        Ok(Self(Arc::new(pool)))
    }

    /// Runs work on a head of this size. If it takes long, the other tasks of the calling thread move to another
    /// thread.
    pub(crate) fn run<R>(&self, head: &Weights, work: impl FnOnce() -> R) -> R {
        let shared_out = || on_threads_of(&self.0, work);
        let may_block = || Handle::try_current().is_ok_and(|at| at.runtime_flavor() == RuntimeFlavor::MultiThread);
        if head.0 >= LONG && may_block() { tokio::task::block_in_place(shared_out) } else { shared_out() }
    }
}

/// The number of elements of W or P, whichever is larger.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights(usize);

impl Weights {
    /// The size of a head of C = `classes` and s = `width`.
    pub(crate) fn of(classes: usize, width: usize) -> Self {
        Self(width.saturating_mul(classes.max(width)))
    }
}
