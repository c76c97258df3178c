//! What a network or a worker gone wrong adds to what was sent: copies that come late, and contributions that are not
//! as they should be. All of it must be refused.

use antiphon_core::ids::{Term, TurnRef};
use antiphon_core::rng::{self, Stream};
use antiphon_core::time::{Span, Time};

use crate::worker::ToCoordinator;

/// How much of it there is.
pub(crate) struct Noise {
    /// Of a hundred messages so many come again.
    pub(crate) copies: u64,
    /// Of a hundred contributions so many come wrong as well.
    pub(crate) lies: u64,
}

impl Noise {
    /// What comes beside a message: when, seemingly from whom, and what. `liar` is another worker, if there is one.
    pub(crate) fn around(
        &self,
        from: usize,
        liar: Option<usize>,
        message: &ToCoordinator,
        arrival: Time,
        stream: &mut Stream,
    ) -> Vec<(Time, usize, ToCoordinator)> {
        let mut added = Vec::new();
        // To give a sign of life or to let go twice is no fault.
        let says_nothing_new = matches!(
            message,
            ToCoordinator::Heartbeat { .. } | ToCoordinator::Leaving { .. } | ToCoordinator::Released
        );
        if says_nothing_new {
            return added;
        }
        if rng::below(stream, 100) < self.copies {
            added.push((later(arrival, stream), from, message.clone()));
        }
        if let ToCoordinator::Contribution { .. } = message
            && rng::below(stream, 100) < self.lies
            && let Some((liar, lie)) = lie(from, liar, message.clone(), stream)
        {
            // Also before the one that is true.
            let earlier = Time(arrival.0.saturating_sub(rng::below(stream, 1_000)));
            let at = if rng::below(stream, 2) == 0 { earlier } else { later(arrival, stream) };
            added.push((at, liar, lie));
        }
        added
    }
}

fn lie(
    from: usize,
    other: Option<usize>,
    message: ToCoordinator,
    stream: &mut Stream,
) -> Option<(usize, ToCoordinator)> {
    let ToCoordinator::Contribution { turn, mut micro_shard, mut contribution } = message else { return None };
    let (mut turn, mut liar): (TurnRef, usize) = (turn, from);
    match rng::below(stream, 9) {
        // A term that no coordinator will ever have.
        0 => turn.term = Term(turn.term.0 + 1_000),
        1 => turn.turn = turn.turn.next(),
        2 => turn.step = turn.step.next(),
        3 => turn.attempt = turn.attempt.next(),
        4 => turn.head_version = turn.head_version.next(),
        5 => contribution.samples += 1,
        6 => micro_shard.count = 2,
        7 => contribution.loss = f64::NAN,
        // Another worker answers what it was not asked.
        _ => liar = other?,
    }
    Some((liar, ToCoordinator::Contribution { turn, micro_shard, contribution }))
}

/// At once, or after anything up to a second.
pub(crate) fn later(at: Time, stream: &mut Stream) -> Time {
    at + Span(10.0_f64.powf(6.0 * rng::uniform(stream)) as u64 - 1)
}
