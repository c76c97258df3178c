//! Conversions of names, counters and small enums between the wire and the core.

use antiphon_core::ids::{Attempt, BadName, HeadVersion, JobId, MicroShard, Split, Step, Term, Turn, TurnRef};

use crate::error::{WireError, out_of_range, required};
use crate::v1;

/// A name in a text field: [`JobId`], `ModalityName`, `WorkerId`.
///
/// # Errors
/// If the text breaks the rule for names.
pub fn name<N>(field: &str, text: &str) -> Result<N, WireError>
where
    N: for<'a> TryFrom<&'a str, Error = BadName>,
{
    const SHOWN: usize = 80;
    N::try_from(text).map_err(|mut source| {
        if source.given.chars().count() > SHOWN {
            source.given = source.given.chars().take(SHOWN).chain(['…']).collect();
        }
        WireError::Name { field: field.to_owned(), source }
    })
}

/// The reference to a step, which identifies late and repeated messages.
///
/// # Errors
/// If it is missing, or its job is not a job id.
pub fn turn_ref(field: &str, message: Option<&v1::TurnRef>) -> Result<TurnRef, WireError> {
    let message = required(field, message)?;
    Ok(TurnRef {
        job: name::<JobId>(&format!("{field}.job"), &message.job)?,
        term: Term(message.term),
        turn: Turn(message.turn),
        step: Step(message.step),
        attempt: Attempt(message.attempt),
        head_version: HeadVersion(message.head_version),
    })
}

impl From<&TurnRef> for v1::TurnRef {
    fn from(turn: &TurnRef) -> Self {
        Self {
            job: turn.job.to_string(),
            term: turn.term.0,
            turn: turn.turn.0,
            step: turn.step.0,
            attempt: turn.attempt.0,
            head_version: turn.head_version.0,
        }
    }
}

/// A micro-shard of a batch.
///
/// # Errors
/// If it is missing, or its index is not below its count.
pub fn micro_shard(field: &str, message: Option<&v1::MicroShard>) -> Result<MicroShard, WireError> {
    let message = required(field, message)?;
    if message.index >= message.count {
        return Err(out_of_range(
            &format!("{field}.index"),
            message.index,
            format!("less than `{field}.count`, which is {}", message.count),
        ));
    }
    Ok(MicroShard { index: message.index, count: message.count })
}

impl From<MicroShard> for v1::MicroShard {
    fn from(shard: MicroShard) -> Self {
        Self { index: shard.index, count: shard.count }
    }
}

/// A split of the data.
///
/// # Errors
/// If the enum has no such number.
pub fn split(field: &str, value: i32) -> Result<Split, WireError> {
    match v1::Split::try_from(value) {
        Ok(v1::Split::Train) => Ok(Split::Train),
        Ok(v1::Split::Validation) => Ok(Split::Validation),
        Ok(v1::Split::Test) => Ok(Split::Test),
        Ok(v1::Split::Unspecified) | Err(_) => Err(unknown(field, "Split", value)),
    }
}

impl From<Split> for v1::Split {
    fn from(split: Split) -> Self {
        match split {
            Split::Train => Self::Train,
            Split::Validation => Self::Validation,
            Split::Test => Self::Test,
        }
    }
}

fn unknown(field: &str, kind: &'static str, value: i32) -> WireError {
    WireError::UnknownEnum { field: field.to_owned(), kind, value }
}
