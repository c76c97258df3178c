//! Times on the wire: whole nanoseconds.

use antiphon_core::ids::TurnRef;
use antiphon_core::times::WorkerTimes;

use crate::error::{WireError, required};
use crate::{ids, v1};

const NANOSECONDS: f64 = 1e9;

/// The message that an encoder has taken its step.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The step of the contribution.
    pub turn: TurnRef,
    /// How the worker spent its time since its last report.
    pub times: WorkerTimes,
}

impl TryFrom<v1::Learned> for Learned {
    type Error = WireError;
    fn try_from(message: v1::Learned) -> Result<Self, WireError> {
        let turn = ids::turn_ref("learned.turn", message.turn.as_ref())?;
        Ok(Self { turn, times: decode(&required("learned.times", message.times)?) })
    }
}

impl From<Learned> for v1::Learned {
    fn from(learned: Learned) -> Self {
        Self { turn: Some((&learned.turn).into()), times: Some(encode(&learned.times)) }
    }
}

/// In seconds. Any number of nanoseconds is a time.
pub(crate) fn decode(times: &v1::WorkerTimes) -> WorkerTimes {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / NANOSECONDS;
    WorkerTimes {
        data: seconds(times.data),
        forward: seconds(times.forward),
        waiting: seconds(times.waiting),
        head: seconds(times.head),
        exchange: seconds(times.exchange),
        backward: seconds(times.backward),
        other: seconds(times.other),
    }
}

/// In nanoseconds.
pub(crate) fn encode(times: &WorkerTimes) -> v1::WorkerTimes {
    let nanoseconds = |seconds: f64| (seconds * NANOSECONDS) as u64;
    v1::WorkerTimes {
        data: nanoseconds(times.data),
        forward: nanoseconds(times.forward),
        waiting: nanoseconds(times.waiting),
        head: nanoseconds(times.head),
        exchange: nanoseconds(times.exchange),
        backward: nanoseconds(times.backward),
        other: nanoseconds(times.other),
    }
}
