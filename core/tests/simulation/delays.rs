//! How long things take in a simulation.

use antiphon_core::rng::{self, Component, Stream};
use antiphon_core::time::Span;
use serde::{Deserialize, Serialize};

/// A random distribution of lengths of time, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Delay {
    Fixed(u64),
    /// Between these bounds, both inclusive.
    Uniform(u64, u64),
    /// Many short delays and a few long ones, with this mean.
    Exponential(f64),
    /// `usual`, and `rare` once in `times` draws.
    Hiccup {
        usual: u64,
        rare: u64,
        times: u64,
    },
}

impl Delay {
    /// A distribution of any shape whose scale is anything from 10 µs to 100 ms.
    pub(crate) fn any(stream: &mut Stream) -> Self {
        let scale = 10.0 * 10.0_f64.powf(4.0 * rng::uniform(stream));
        let micros = scale as u64;
        match rng::below(stream, 6) {
            // Activities that take no time happen at the same moment as others. Then the order of events decides.
            0 => Self::Fixed(0),
            1 => Self::Fixed(micros),
            2 => Self::Uniform(0, 2 * micros),
            3 => Self::Hiccup { usual: micros, rare: 100 * micros, times: 10 },
            _ => Self::Exponential(scale),
        }
    }

    /// About the longest delay that occurs, in microseconds.
    pub(crate) fn longest(self) -> u64 {
        match self {
            Self::Fixed(micros) => micros,
            Self::Uniform(_, to) => to,
            Self::Exponential(mean) => (12.0 * mean) as u64,
            Self::Hiccup { usual, rare, .. } => usual.max(rare),
        }
    }

    fn draw(self, stream: &mut Stream) -> Span {
        Span(match self {
            Self::Fixed(micros) => micros,
            Self::Uniform(from, to) => from + rng::below(stream, to - from + 1),
            Self::Exponential(mean) => (-mean * (1.0 - rng::uniform(stream)).ln()) as u64,
            Self::Hiccup { usual, rare, times } => {
                if rng::below(stream, times) == 0 {
                    rare
                } else {
                    usual
                }
            }
        })
    }
}

/// A distribution with its own random stream, independent of draws elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    delay: Delay,
    stream: Stream,
}

impl Source {
    pub(crate) fn new(delay: Delay, seed: u64, what: &str, whose: Component<'_>) -> Self {
        Self { delay, stream: rng::stream(seed, &["delay".into(), what.into(), whose]) }
    }

    pub(crate) fn draw(&mut self) -> Span {
        self.delay.draw(&mut self.stream)
    }
}

/// How long the coordinator's own work takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CoordinatorDelays {
    /// Project, step the head.
    pub(crate) apply: Delay,
    /// Fold a turn into the projector.
    pub(crate) fold: Delay,
    /// Write a manifest, while the coordinator works on.
    pub(crate) manifest: Delay,
}

/// How long one worker's work takes, and its messages.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkerDelays {
    pub(crate) join: Delay,
    /// Open its data, build its encoder.
    pub(crate) prepare: Delay,
    pub(crate) forward: Delay,
    /// Logits, loss, the head's gradient, dH.
    pub(crate) local_step: Delay,
    /// Backward and the encoder's optimizer.
    pub(crate) learn: Delay,
    pub(crate) evaluate: Delay,
    pub(crate) save: Delay,
    /// A message from the coordinator to it.
    pub(crate) inbound: Delay,
    /// A message from it to the coordinator.
    pub(crate) outbound: Delay,
}

impl CoordinatorDelays {
    pub(crate) fn any(stream: &mut Stream) -> Self {
        Self { apply: Delay::any(stream), fold: Delay::any(stream), manifest: Delay::any(stream) }
    }
}

impl WorkerDelays {
    pub(crate) fn any(stream: &mut Stream) -> Self {
        Self {
            join: Delay::any(stream),
            // Sometimes so long that the job reports what it waits for.
            prepare: if rng::below(stream, 20) == 0 { Delay::Uniform(0, 30_000_000) } else { Delay::any(stream) },
            forward: Delay::any(stream),
            local_step: Delay::any(stream),
            learn: Delay::any(stream),
            evaluate: Delay::any(stream),
            save: Delay::any(stream),
            inbound: Delay::any(stream),
            outbound: Delay::any(stream),
        }
    }
}
