//! The samples of each batch, as a pure function of the step.

use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::ids::ModalityName;
use antiphon_core::rng;

/// Divides every epoch's permutation of a modality's samples into batches. The last batch of an epoch may be smaller.
///
/// Step `t` is batch `t mod batches_per_epoch` of epoch `t / batches_per_epoch`. The permutation of an epoch depends
/// only on the job's seed, the modality and the epoch. So a position is one number, and any step can be repeated.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    modality: ModalityName,
    samples: u32,
    batch: u32,
    /// The permutation of the last call, a cache.
    latest: Mutex<Option<(u64, Arc<Vec<u32>>)>>,
}

impl Sampler {
    /// A sampler over `samples` samples in batches of `batch`. Both are at least 1.
    #[must_use]
    pub fn new(seed: u64, modality: ModalityName, samples: usize, batch: u32) -> Self {
        Self { seed, modality, samples: (samples as u32).max(1), batch: batch.max(1), latest: Mutex::new(None) }
    }

    /// ⌈samples / batch⌉.
    #[must_use]
    pub fn batches_per_epoch(&self) -> u64 {
        u64::from(self.samples.div_ceil(self.batch))
    }

    /// The epoch of step `step`, and the indices of its samples.
    #[must_use]
    pub fn batch_indices(&self, step: u64) -> (u64, Vec<u32>) {
        let epoch = step / self.batches_per_epoch();
        let from = (step % self.batches_per_epoch()) as usize * self.batch as usize;
        let to = (from + self.batch as usize).min(self.samples as usize);
        (epoch, self.permutation(epoch)[from..to].to_vec())
    }

    fn permutation(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, permutation)) = latest.as_ref()
            && *held == epoch
        {
            return Arc::clone(permutation);
        }
        let mut stream = rng::stream(self.seed, &["shuffle".into(), self.modality.as_str().into(), epoch.into()]);
        let permutation = Arc::new(rng::permutation(&mut stream, self.samples));
        *latest = Some((epoch, Arc::clone(&permutation)));
        permutation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(seed: u64, modality: &str) -> Sampler {
        Sampler::new(seed, modality.try_into().expect("a name"), 10, 4)
    }

    #[test]
    fn an_epoch_has_every_sample_once_and_the_last_batch_is_kept() {
        let sampler = sampler(7, "audio");
        assert_eq!(sampler.batches_per_epoch(), 3);
        for epoch in 0..5 {
            let batches: Vec<_> = (epoch * 3..epoch * 3 + 3).map(|step| sampler.batch_indices(step)).collect();
            assert!(batches.iter().all(|(of, _)| *of == epoch));
            assert_eq!(batches.iter().map(|(_, batch)| batch.len()).collect::<Vec<_>>(), [4, 4, 2]);
            let mut all: Vec<u32> = batches.into_iter().flat_map(|(_, batch)| batch).collect();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_depends_on_seed_modality_and_step_alone() {
        let (forwards, backwards) = (sampler(7, "audio"), sampler(7, "audio"));
        let expected: Vec<_> = (0..20).map(|step| forwards.batch_indices(step)).collect();
        for step in (0..20).rev() {
            assert_eq!(backwards.batch_indices(step), expected[step as usize]);
        }
        assert_ne!(sampler(8, "audio").batch_indices(0), expected[0]);
        assert_ne!(sampler(7, "image").batch_indices(0), expected[0]);
        assert_ne!(expected[0].1, expected[3].1, "two epochs have the same order");
    }
}
