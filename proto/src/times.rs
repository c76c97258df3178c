//! Times on the wire: whole nanoseconds.

use antiphon_core::ids::TurnRef;
use antiphon_core::times::WorkerTimes;

use crate::error::{WireError, required};
use crate::{ids, v1};

const NANOSECONDS: f64 = 1e9;

/// An encoder has taken its own step.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// From the contribution to this one.
    pub turn: TurnRef,
    /// Where the worker's time went since it last said so.
    pub times: WorkerTimes,
}

impl TryFrom<v1::Learned> for Learned {
    type Error = WireError;
    fn try_from(message: v1::Learned) -> Result<Self, WireError> {
        let turn = ids::turn_ref("learned.turn", message.turn.as_ref())?;
        let times = required("learned.times", message.times)?;
        let seconds = |nanoseconds: u64| nanoseconds as f64 / NANOSECONDS;
        Ok(Self {
            turn,
            times: WorkerTimes {
                data: seconds(times.data),
                forward: seconds(times.forward),
                waiting: seconds(times.waiting),
                head: seconds(times.head),
                exchange: seconds(times.exchange),
                backward: seconds(times.backward),
                other: seconds(times.other),
            },
        })
    }
}

impl From<Learned> for v1::Learned {
    fn from(learned: Learned) -> Self {
        let nanoseconds = |seconds: f64| (seconds * NANOSECONDS) as u64;
        let times = learned.times;
        Self {
            turn: Some((&learned.turn).into()),
            times: Some(v1::WorkerTimes {
                data: nanoseconds(times.data),
                forward: nanoseconds(times.forward),
                waiting: nanoseconds(times.waiting),
                head: nanoseconds(times.head),
                exchange: nanoseconds(times.exchange),
                backward: nanoseconds(times.backward),
                other: nanoseconds(times.other),
            }),
        }
    }
}
