//! How often the server fails, and how.

use std::fmt;
use std::time::Duration;

use antiphon_core::rng;

/// Shares of requests, from 0 to 1, that fail. What happens to a request is a function of the seed and of the number of
/// requests before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Which requests fail.
    pub seed: u64,
    /// Answered by 503 before anything is done.
    pub refused: f64,
    /// Carried out, and then answered by 500.
    pub lost: f64,
    /// The connection breaks: before anything is done, or, as often, once it is.
    pub reset: f64,
    /// The second half of the answer's body does not arrive.
    pub truncated: f64,
    /// Answered late.
    pub slow: f64,
    /// How late at the most.
    pub slow_by: Duration,
    /// Whose body is read slowly, and so is the answer's sent.
    pub slow_bodies: f64,
    /// How slowly: bytes of a body per second.
    pub bytes_per_second: u32,
}

/// What happens to one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    pub(crate) refused: bool,
    pub(crate) lost: bool,
    pub(crate) reset_before: bool,
    pub(crate) reset_after: bool,
    pub(crate) truncated: bool,
    pub(crate) late: Option<Duration>,
    pub(crate) pace: Option<Pace>,
}

/// How slowly a body passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bytes_per_second: u32,
}

impl Pace {
    /// How long so many bytes take.
    pub(crate) fn time(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_second.max(1)))
    }

    /// Bytes that are sent at once: fifty times a second, unless that is less than one.
    pub(crate) fn chunk(self) -> usize {
        (self.bytes_per_second as usize / 50).max(1)
    }
}

impl Faults {
    /// A server that never fails.
    pub const NONE: Self = Self {
        seed: 0,
        refused: 0.0,
        lost: 0.0,
        reset: 0.0,
        truncated: 0.0,
        slow: 0.0,
        slow_by: Duration::ZERO,
        slow_bodies: 0.0,
        bytes_per_second: 1 << 20,
    };

    /// A failing server: about two of five requests fail, in one way or another.
    #[must_use]
    pub fn frequent(seed: u64) -> Self {
        let slow_by = Duration::from_millis(20);
        Self { seed, refused: 0.12, lost: 0.1, reset: 0.1, truncated: 0.1, slow: 0.1, slow_by, ..Self::NONE }
    }

    pub(crate) fn fate(&self, request: u64) -> Fate {
        let mut stream = rng::stream(self.seed, &["s3-faults".into(), request.into()]);
        let mut happens = |share| rng::uniform(&mut stream) < share;
        let (refused, lost, reset, first) =
            (happens(self.refused), happens(self.lost), happens(self.reset), happens(0.5));
        let (truncated, slow) = (happens(self.truncated), happens(self.slow));
        let late = slow.then(|| self.slow_by.mul_f64(rng::uniform(&mut stream)));
        let slow_body = rng::uniform(&mut stream) < self.slow_bodies;
        let pace = slow_body.then_some(Pace { bytes_per_second: self.bytes_per_second });
        Fate { refused, lost, reset_before: reset && first, reset_after: reset && !first, truncated, late, pace }
    }
}

/// A connection that is broken on purpose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}
