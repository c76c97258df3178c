//! Seeded random numbers: the only source of randomness in the system.
//!
//! Every use has its own stream, named by a path under the job's seed, so drawing more in one place never changes what
//! another place draws. It never asks the operating system.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use crate::ids::ModalityName;

/// A stream of random numbers. [`stream`] makes one.
pub type Stream = ChaCha8Rng;

/// Changing this changes every random number of every job.
const DOMAIN: &[u8] = b"antiphon.rng.v1";

/// One component of the path that names a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component<'a> {
    /// A word.
    Text(&'a str),
    /// A number, never equal to the word that spells it.
    Number(u64),
}

impl<'a> From<&'a str> for Component<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Component<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a ModalityName> for Component<'a> {
    fn from(name: &'a ModalityName) -> Self {
        Self::Text(name.as_str())
    }
}

impl From<u64> for Component<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Component<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Component<'_> {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

/// The stream with this path under this seed. Its key is the SHA-256 of a domain tag, the seed and the components, each
/// with its kind and length, so that no two paths share a stream.
///
/// ```
/// use antiphon_core::rng;
/// let mut a = rng::stream(7, &["shuffle".into(), "audio".into(), 0_u64.into()]);
/// let mut b = rng::stream(7, &["shuffle".into(), "audio".into(), 1_u64.into()]);
/// assert_ne!(rng::uniform(&mut a), rng::uniform(&mut b));
/// ```
#[must_use]
pub fn stream(seed: u64, path: &[Component<'_>]) -> Stream {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update(seed.to_le_bytes());
    for component in path {
        match component {
            Component::Text(text) => {
                hash.update([0]);
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
            Component::Number(number) => {
                hash.update([1]);
                hash.update(number.to_le_bytes());
            }
        }
    }
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// Uniform in [0, 1), a multiple of 2⁻⁵³.
pub fn uniform(stream: &mut Stream) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;
    (stream.next_u64() >> 11) as f64 * UNIT
}

/// Normal with mean 0 and deviation 1 (Box and Muller 1958). Always takes two numbers from the stream.
pub fn normal(stream: &mut Stream) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(stream)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(stream)).cos()
}

/// Uniform in 0 .. `bound`, without bias (Lemire 2019).
///
/// # Panics
/// If `bound` is 0: there is no such number.
pub fn below(stream: &mut Stream, bound: u64) -> u64 {
    assert!(bound > 0, "a random number below 0 was asked for");
    let reject_under = bound.wrapping_neg() % bound;
    loop {
        let wide = u128::from(stream.next_u64()) * u128::from(bound);
        if wide as u64 >= reject_under {
            return (wide >> 64) as u64;
        }
    }
}

/// Puts the items into a random order. All orders are equally likely (Fisher and Yates).
pub fn shuffle<T>(stream: &mut Stream, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        let j = below(stream, i as u64 + 1) as usize;
        items.swap(i, j);
    }
}

/// 0 .. n - 1 in a random order.
#[must_use]
pub fn permutation(stream: &mut Stream, n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    shuffle(stream, &mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_spell_alike_are_streams_apart() {
        let paths: [&[Component<'_>]; 6] = [
            &[],
            &["ab".into(), "c".into()],
            &["a".into(), "bc".into()],
            &["abc".into()],
            &["1".into()],
            &[1_u64.into()],
        ];
        let mut drawn: Vec<u64> = paths.iter().map(|path| stream(7, path).next_u64()).collect();
        drawn.push(stream(8, &[]).next_u64());
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 7);
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut order = permutation(&mut stream(1, &["order".into()]), 1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        assert_eq!(permutation(&mut stream(1, &[]), 0), Vec::<u32>::new());
    }

    #[test]
    fn numbers_below_a_bound_are_spread_evenly() {
        let mut stream = stream(3, &["below".into()]);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[below(&mut stream, 7) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (9_600..10_400).contains(n)), "{counts:?}");
        assert_eq!(below(&mut stream, 1), 0);
        assert!(below(&mut stream, u64::MAX) < u64::MAX);
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut stream = stream(4, &["moments".into()]);
        let n = 100_000;
        let normals: Vec<f64> = (0..n).map(|_| normal(&mut stream)).collect();
        let mean = normals.iter().sum::<f64>() / f64::from(n);
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let uniforms: Vec<f64> = (0..n).map(|_| uniform(&mut stream)).collect();
        assert!(uniforms.iter().all(|x| (0.0..1.0).contains(x)));
        assert!((uniforms.iter().sum::<f64>() / f64::from(n) - 0.5).abs() < 0.005);
    }
}
