//! Messages that a faulty network or worker adds: late copies, and wrong contributions. All of them must be refused.

use antiphon_core::ids::{Term, TurnRef};
use antiphon_core::rng::{self, Stream};
use antiphon_core::time::{Span, Time};

use crate::worker::ToCoordinator;

/// How many of these messages there are.
pub(crate) struct Noise {
    /// Per cent of messages that arrive twice.
    pub(crate) copies: u64,
    /// Per cent of contributions that are accompanied by a wrong one.
    pub(crate) lies: u64,
}

impl Noise {
    /// The extra messages for a message: their time, apparent sender and contents. `liar` is another worker, if there
    /// is one.
    pub(crate) fn around(
        &self,
        from: usize,
        liar: Option<usize>,
        message: &ToCoordinator,
        arrival: Time,
        stream: &mut Stream,
    ) -> Vec<(Time, usize, ToCoordinator)> {
        let mut added = Vec::new();
        // A second heartbeat or release is harmless.
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
            // Sometimes before the genuine one.
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
        // Another worker sends the contribution, which was not granted to it.
        _ => liar = other?,
    }
    Some((liar, ToCoordinator::Contribution { turn, micro_shard, contribution }))
}

/// At once, or up to a second later.
pub(crate) fn later(at: Time, stream: &mut Stream) -> Time {
    at + Span(10.0_f64.powf(6.0 * rng::uniform(stream)) as u64 - 1)
}
