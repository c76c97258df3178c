//! The files of a checkpoint that a worker has written.

use std::time::Duration;

use antiphon_core::ids::{JobId, Term, Turn};

use crate::error::{WireError, out_of_range};
use crate::{ids, v1};

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// File name inside the checkpoint's folder.
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A worker has written its files of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesSaved {
    /// The job.
    pub job: JobId,
    /// The coordinator's term.
    pub term: Term,
    /// Turns applied at the checkpoint, which names it.
    pub turn: Turn,
    /// The files that it has written. At least one.
    pub files: Vec<CheckpointFile>,
    /// The stall time of the worker's computing thread for the snapshot.
    pub snapshot: Duration,
}

impl TryFrom<v1::FilesSaved> for FilesSaved {
    type Error = WireError;
    fn try_from(message: v1::FilesSaved) -> Result<Self, WireError> {
        if message.files.is_empty() {
            return Err(WireError::Missing { field: "files_saved.files".to_owned() });
        }
        let files = message.files.into_iter().enumerate();
        Ok(Self {
            job: ids::name("files_saved.job", &message.job)?,
            term: Term(message.term),
            turn: Turn(message.turn),
            files: files.map(|(at, file)| decode_file(at, file)).collect::<Result<_, _>>()?,
            snapshot: Duration::from_nanos(message.snapshot),
        })
    }
}

impl From<FilesSaved> for v1::FilesSaved {
    fn from(saved: FilesSaved) -> Self {
        let files = saved.files.into_iter();
        Self {
            job: saved.job.to_string(),
            term: saved.term.0,
            turn: saved.turn.0,
            files: files
                .map(|file| v1::CheckpointFile { name: file.name, size: file.size, sha256: file.sha256.to_vec() })
                .collect(),
            snapshot: u64::try_from(saved.snapshot.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

fn decode_file(at: usize, file: v1::CheckpointFile) -> Result<CheckpointFile, WireError> {
    if !antiphon_core::files::is_name(&file.name) {
        let rule = "a file name of letters, digits, `-`, `_` and `.`, at most 128, not beginning with a dot";
        return Err(out_of_range(&format!("files_saved.files[{at}].name"), format!("{:?}", file.name), rule));
    }
    let sha256 = <[u8; 32]>::try_from(file.sha256.as_slice()).map_err(|_| {
        let value = format!("{} bytes long", file.sha256.len());
        out_of_range(&format!("files_saved.files[{at}].sha256"), value, "32 bytes")
    })?;
    Ok(CheckpointFile { name: file.name, size: file.size, sha256 })
}
