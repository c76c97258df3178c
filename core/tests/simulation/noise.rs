//! What a network or a worker gone wrong adds to what was sent: copies that come late, and contributions that are not as they
//! should be. All of it must be refused.

use antiphon_core::ids::TurnRef;
use antiphon_core::rng::{self, Stream};
use antiphon_core::time::{Span, Time};

use crate::worker::ToCoordinator;

/// How much of it there is.
pub(crate) struct Noise {
    /// Of a hundred messages so many come again.
    pub(crate) copies: u64,
    /// Of a hundred contributions so many come wrong as well.
    pub(crate) lies: u64,
    pub(crate) workers: usize,
}

impl Noise {
    /// What comes beside a message: when, seemingly from whom, and what.
    pub(crate) fn around(
        &self,
        from: usize,
        message: &ToCoordinator,
        arrival: Time,
        stream: &mut Stream,
    ) -> Vec<(Time, usize, ToCoordinator)> {
        let mut added = Vec::new();
        // Whoever joins or is prepared twice before the job begins says nothing new, and that is no fault.
        if matches!(message, ToCoordinator::Join { .. } | ToCoordinator::Prepared { .. }) {
            return added;
        }
        if rng::below(stream, 100) < self.copies {
            added.push((later(arrival, stream), from, message.clone()));
        }
        if let ToCoordinator::Contribution { .. } = message
            && rng::below(stream, 100) < self.lies
            && let Some((liar, lie)) = self.lie(from, message.clone(), stream)
        {
            // Also before the one that is true.
            let earlier = Time(arrival.0.saturating_sub(rng::below(stream, 1_000)));
            let at = if rng::below(stream, 2) == 0 { earlier } else { later(arrival, stream) };
            added.push((at, liar, lie));
        }
        added
    }

    fn lie(&self, from: usize, message: ToCoordinator, stream: &mut Stream) -> Option<(usize, ToCoordinator)> {
        let ToCoordinator::Contribution { turn, mut micro_shard, mut contribution } = message else { return None };
        let (mut turn, mut liar): (TurnRef, usize) = (turn, from);
        match rng::below(stream, 9) {
            0 => turn.term = turn.term.next(),
            1 => turn.turn = turn.turn.next(),
            2 => turn.step = turn.step.next(),
            3 => turn.attempt = turn.attempt.next(),
            4 => turn.head_version = turn.head_version.next(),
            5 => contribution.samples += 1,
            6 => micro_shard.count = 2,
            7 => contribution.loss = f64::NAN,
            // Another worker answers what it was not asked.
            _ if self.workers > 1 => liar = (from + 1) % self.workers,
            _ => return None,
        }
        Some((liar, ToCoordinator::Contribution { turn, micro_shard, contribution }))
    }
}

/// At once, or after anything up to a second.
fn later(at: Time, stream: &mut Stream) -> Time {
    at + Span(10.0_f64.powf(6.0 * rng::uniform(stream)) as u64 - 1)
}
