//! Decoding ahead: threads prepare the next batches while the encoder computes.
//!
//! Batches have numbers. Each thread takes the next number that is less than `depth` ahead of the consumer, decodes
//! that batch and stores it for the consumer. So batches arrive in order for any number of threads, at most `depth` of
//! them exist, and idle threads sleep. An error arrives in place of its batch, after all earlier batches.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::batch::{Batch, BatchInput};
use super::dataset::Dataset;
use super::error::{DataError, SampleError};
use super::preprocess::Preprocessor;
use super::sampler::Sampler;

/// How far ahead, and with how many threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefetchOptions {
    /// The number of threads that decode. At least 1.
    pub threads: usize,
    /// The largest number of batches that are ready or in progress. At least 1.
    pub depth: usize,
}

impl Default for PrefetchOptions {
    /// 2 threads and 4 batches.
    fn default() -> Self {
        Self { threads: 2, depth: 4 }
    }
}

/// Batches in order, decoded ahead. Dropping it stops its threads.
#[derive(Debug)]
pub struct Prefetcher {
    shared: Arc<Shared>,
    next: u64,
    threads: Vec<JoinHandle<()>>,
}

/// Which samples are in which batch.
#[derive(Debug)]
enum Plan {
    Train(Sampler),
    /// Chunks of this many samples, in the order of ids.
    Evaluation(usize),
}

#[derive(Debug)]
struct Shared {
    dataset: Arc<Dataset>,
    preprocessor: Arc<Preprocessor>,
    plan: Plan,
    depth: u64,
    state: Mutex<State>,
    /// A batch is ready.
    ready: Condvar,
    /// Another batch may be started, or it is time to stop.
    room: Condvar,
}

#[derive(Debug)]
struct State {
    /// The next number that no thread has taken yet.
    untaken: u64,
    /// The number of the consumer's next batch.
    wanted: u64,
    done: BTreeMap<u64, Result<Batch, DataError>>,
    stopped: bool,
}

impl Prefetcher {
    /// An endless iterator over the batches of `sampler`, starting at step `from`.
    #[must_use]
    pub fn train(
        dataset: Arc<Dataset>,
        preprocessor: Arc<Preprocessor>,
        sampler: Sampler,
        from: u64,
        options: PrefetchOptions,
    ) -> Self {
        Self::start(dataset, preprocessor, Plan::Train(sampler), from, options)
    }

    /// Every sample once, in byte order of the ids, in chunks of `chunk`. The last chunk may be smaller.
    #[must_use]
    pub fn evaluation(
        dataset: Arc<Dataset>,
        preprocessor: Arc<Preprocessor>,
        chunk: usize,
        options: PrefetchOptions,
    ) -> Self {
        Self::start(dataset, preprocessor, Plan::Evaluation(chunk.max(1)), 0, options)
    }

    fn start(
        dataset: Arc<Dataset>,
        preprocessor: Arc<Preprocessor>,
        plan: Plan,
        from: u64,
        options: PrefetchOptions,
    ) -> Self {
        let state = State { untaken: from, wanted: from, done: BTreeMap::new(), stopped: false };
        let shared = Arc::new(Shared {
            dataset,
            preprocessor,
            plan,
            depth: options.depth.max(1) as u64,
            state: Mutex::new(state),
            ready: Condvar::new(),
            room: Condvar::new(),
        });
        let threads = (0..options.threads.max(1))
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.work())
            })
            .collect();
        Self { shared, next: from, threads }
    }
}

impl Iterator for Prefetcher {
    type Item = Result<Batch, DataError>;

    /// Waits for the next batch. None after the last chunk of an evaluation, and for training on an empty split.
    fn next(&mut self) -> Option<Self::Item> {
        if !self.shared.plan.has(self.next, &self.shared.dataset) {
            return None;
        }
        let mut state = self.shared.lock();
        let result = loop {
            if let Some(result) = state.done.remove(&self.next) {
                break result;
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        self.next += 1;
        state.wanted = self.next;
        self.shared.room.notify_all();
        Some(result)
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Plan {
    fn has(&self, number: u64, dataset: &Dataset) -> bool {
        match self {
            Self::Train(_) => !dataset.is_empty(),
            Self::Evaluation(chunk) => number < dataset.len().div_ceil(*chunk) as u64,
        }
    }

    /// The epoch and the samples of a batch; None after the last.
    fn indices(&self, number: u64, dataset: &Dataset) -> Option<(u64, Vec<u32>)> {
        self.has(number, dataset).then(|| match self {
            Self::Train(sampler) => sampler.batch_indices(number),
            Self::Evaluation(chunk) => {
                let order = dataset.ids_in_order();
                let from = number as usize * chunk;
                (0, order[from..order.len().min(from + chunk)].to_vec())
            }
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(number) = self.take() {
            let Some((epoch, indices)) = self.plan.indices(number, &self.dataset) else {
                return;
            };
            let made = catch_unwind(AssertUnwindSafe(|| self.batch(number, epoch, &indices)));
            let result = made.unwrap_or_else(|_| {
                let error = SampleError::new(
                    "decoding the batch panicked, which is a bug",
                    "replace the file; it may be damaged",
                );
                Err(self.dataset.sample_error(indices[0], error))
            });
            self.lock().done.insert(number, result);
            self.ready.notify_all();
        }
    }

    /// The number of the next batch to prepare. None when it is time to stop.
    fn take(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if state.untaken < state.wanted + self.depth {
                state.untaken += 1;
                return Some(state.untaken - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn batch(&self, number: u64, epoch: u64, indices: &[u32]) -> Result<Batch, DataError> {
        let mut decoded = Vec::with_capacity(indices.len());
        for i in indices {
            let value = self.dataset.value(*i)?;
            decoded.push(self.preprocessor.decode(&value).map_err(|error| self.dataset.sample_error(*i, error))?);
        }
        Ok(Batch {
            number,
            epoch,
            ids: indices.iter().map(|i| self.dataset.id(*i).to_owned()).collect(),
            labels: indices.iter().map(|i| self.dataset.label(*i)).collect(),
            input: BatchInput::stack(self.preprocessor.shape(), decoded),
        })
    }
}
