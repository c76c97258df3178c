//! What a worker says of the parts of a checkpoint that it wrote.

use std::time::Duration;

use antiphon_core::ids::{JobId, Term, Turn};

use crate::error::{WireError, out_of_range};
use crate::{ids, v1};

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// File name inside the checkpoint's folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A worker has written its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSaved {
    /// The job.
    pub job: JobId,
    /// The coordinator's term.
    pub term: Term,
    /// The checkpoint.
    pub turn: Turn,
    /// At least one.
    pub parts: Vec<Part>,
    /// How long the worker's computing stood still while it took them.
    pub snapshot: Duration,
}

impl TryFrom<v1::PartSaved> for PartSaved {
    type Error = WireError;
    fn try_from(message: v1::PartSaved) -> Result<Self, WireError> {
        if message.parts.is_empty() {
            return Err(WireError::Missing { field: "part_saved.parts".to_owned() });
        }
        let parts = message.parts.into_iter().enumerate();
        Ok(Self {
            job: ids::name("part_saved.job", &message.job)?,
            term: Term(message.term),
            turn: Turn(message.turn),
            parts: parts.map(|(at, part)| decode_part(at, part)).collect::<Result<_, _>>()?,
            snapshot: Duration::from_nanos(message.snapshot),
        })
    }
}

impl From<PartSaved> for v1::PartSaved {
    fn from(saved: PartSaved) -> Self {
        let parts = saved.parts.into_iter();
        Self {
            job: saved.job.to_string(),
            term: saved.term.0,
            turn: saved.turn.0,
            parts: parts
                .map(|part| v1::Part { name: part.name, size: part.size, sha256: part.sha256.to_vec() })
                .collect(),
            snapshot: u64::try_from(saved.snapshot.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

fn decode_part(at: usize, part: v1::Part) -> Result<Part, WireError> {
    if !antiphon_core::files::is_name(&part.name) {
        let rule = "a file name of letters, digits, `-`, `_` and `.`, at most 128, not beginning with a dot";
        return Err(out_of_range(&format!("part_saved.parts[{at}].name"), format!("{:?}", part.name), rule));
    }
    let sha256 = <[u8; 32]>::try_from(part.sha256.as_slice()).map_err(|_| {
        let value = format!("{} bytes long", part.sha256.len());
        out_of_range(&format!("part_saved.parts[{at}].sha256"), value, "32 bytes")
    })?;
    Ok(Part { name: part.name, size: part.size, sha256 })
}
