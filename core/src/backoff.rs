//! How long to wait before a retry: pauses that grow and that differ from caller to caller.
//!
//! Owns no clock and no count: the caller counts its failures and decides when to give up.

use std::time::Duration;

use crate::rng::{self, Component};

/// Pauses that double from the first up to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest pause before the first retry.
    pub first: Duration,
    /// The upper bound of every pause.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after a failure that `failures` others preceded. It lasts between half of its length and all of it.
    /// Seed, path and `failures` decide how long exactly, so callers that fail together do not retry together.
    ///
    /// ```
    /// use antiphon_core::backoff::Backoff;
    /// use std::time::Duration;
    /// let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
    /// let third = backoff.pause(2, 0, &["worker-1".into()]);
    /// assert!((200..=400).contains(&third.as_millis()));
    /// ```
    #[must_use]
    pub fn pause(&self, failures: u32, seed: u64, path: &[Component<'_>]) -> Duration {
        let length = self.first.saturating_mul(2_u32.saturating_pow(failures)).min(self.longest);
        let path = [&["backoff".into()], path, &[failures.into()]].concat();
        length.mul_f64(0.5 + 0.5 * rng::uniform(&mut rng::stream(seed, &path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(5) };

    #[test]
    fn pauses_double_up_to_a_bound_and_are_cut_by_half_at_most() {
        for (failures, length) in [(0, 250), (1, 500), (4, 4000), (5, 5000), (31, 5000), (400, 5000), (u32::MAX, 5000)]
        {
            let length = Duration::from_millis(length);
            for seed in 0..100 {
                let pause = BACKOFF.pause(failures, seed, &[]);
                assert!((length / 2..=length).contains(&pause), "{failures}: {pause:?}");
            }
        }
        let long = Backoff { first: Duration::MAX, longest: Duration::from_secs(3600) };
        assert!(long.pause(7, 0, &[]) <= long.longest, "nothing overflows");
    }

    #[test]
    fn pauses_differ_with_seed_path_and_number() {
        let share = |failures: u32, seed, name: &str| {
            BACKOFF.pause(failures, seed, &[name.into()]).div_duration_f64(BACKOFF.first * 2_u32.pow(failures))
        };
        assert_eq!(share(1, 1, "a"), share(1, 1, "a"));
        for (failures, seed, name) in [(2, 1, "a"), (1, 2, "a"), (1, 1, "b")] {
            assert_ne!(share(failures, seed, name), share(1, 1, "a"), "{failures} {seed} {name}");
        }
    }
}
