//! The faults of the server.

use std::fmt;
use std::time::Duration;

use antiphon_core::rng;

/// Shares of requests, from 0 to 1, that fail. What happens to a request is a function of the seed and of the number of
/// requests before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Seed that determines which requests fail.
    pub seed: u64,
    /// Answered with 503 and not executed.
    pub refused: f64,
    /// Executed, and then answered with 500.
    pub lost: f64,
    /// The connection breaks: half of the time before the request is executed, otherwise after.
    pub reset: f64,
    /// The second half of the answer's body is not sent.
    pub truncated: f64,
    /// Answered with a delay.
    pub slow: f64,
    /// Largest delay.
    pub slow_by: Duration,
    /// The request's body is read slowly, and the answer's body is sent slowly.
    pub slow_bodies: f64,
    /// Rate of slow bodies in bytes per second.
    pub bytes_per_second: u32,
}

/// The fate of one request.
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

/// The rate of a slow body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bytes_per_second: u32,
}

impl Pace {
    /// The time that this number of bytes takes.
    pub(crate) fn time(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / f64::from(self.bytes_per_second.max(1)))
    }

    /// Number of bytes that are sent at once: a fiftieth of a second's bytes, at least one.
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

    /// A failing server: about two in five requests have a fault.
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

/// The error of an intentionally broken connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("broken on purpose")
    }
}

impl std::error::Error for Broken {}
