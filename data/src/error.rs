//! Errors in data, with what a person can do about them.

use antiphon_core::ids::Split;

/// Names a sample for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleOrigin {
    /// The file or URL, or the name of the generated data set.
    pub file: String,
    /// The row within the file, from 0, if it is known.
    pub row: Option<u64>,
    /// The sample's id, if it is known.
    pub id: Option<String>,
}

impl std::fmt::Display for SampleOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(id) = &self.id {
            write!(f, ", id `{id}`")?;
        }
        Ok(())
    }
}

/// What is wrong with one value, and what to do about it. The caller adds the sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct SampleError {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl SampleError {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// The same error, for one frame of a clip.
    pub(super) fn in_frame(self, position: usize) -> Self {
        Self { what: format!("frame {position}: {}", self.what), ..self }
    }
}

/// Runs a decoder of a dependency. Some decoders panic on damaged files. A panic becomes an error.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, SampleError>) -> Result<T, SampleError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(SampleError::new("the decoder failed on it", "the file is damaged; replace it, or make the value null"))
    })
}

/// Why data cannot be used. Every message says where, what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A text that is neither a path nor a supported URL.
    #[error("`{location}` is not a path or URL of data: {reason}")]
    Location {
        /// As given in the job.
        location: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// No file matches a name.
    #[error("no file matches `{pattern}`: {found}; put the files there or correct the path")]
    NothingMatches {
        /// As given in the job.
        pattern: String,
        /// What the folder holds instead.
        found: String,
    },
    /// A store that does not answer or refuses a request.
    #[error("cannot read `{url}`: {reason}; {remedy}")]
    Unreachable {
        /// The path or URL that was requested.
        url: String,
        /// The error of the store or the network.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
        /// Whether a retry may succeed.
        passing: bool,
    },
    /// A file that is not Parquet, or is damaged.
    #[error("{file}: {reason}; {remedy}")]
    File {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
        /// What to do about it.
        remedy: String,
    },
    /// A column that the file does not have.
    #[error("{file}: there is no column `{column}`; set `{key}` to one of its columns: {}", listed(.there))]
    NoColumn {
        /// The file.
        file: String,
        /// As given in the job.
        column: String,
        /// The key of the job file that names the column.
        key: &'static str,
        /// The columns of the file, in its order.
        there: Vec<String>,
    },
    /// A column whose type does not fit the job.
    #[error("{file}: column `{column}` is {found}, not {wanted}; {remedy}")]
    ColumnType {
        /// The file.
        file: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The expected type.
        wanted: &'static str,
        /// What to do about it.
        remedy: String,
    },
    /// One value that cannot be used.
    #[error("{place}, column `{column}`: {error}")]
    Sample {
        /// The sample.
        place: Box<SampleOrigin>,
        /// The column.
        column: String,
        /// What is wrong with the value.
        error: SampleError,
    },
    /// An id that occurs twice in one split.
    #[error(
        "{place}: this id occurs in the {split} split already, at {first}; ids pair the modalities, so give every sample of \
         a split a different id, or leave out `id` to number the rows"
    )]
    DuplicateId {
        /// The split.
        split: Split,
        /// The second sample with this id.
        place: Box<SampleOrigin>,
        /// The first sample with this id.
        first: Box<SampleOrigin>,
    },
    /// A split without samples.
    #[error("the {split} split of column `{column}` is empty: {reason}")]
    EmptySplit {
        /// The split.
        split: Split,
        /// The column.
        column: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A generated data set that the job specifies wrongly.
    #[error(transparent)]
    Synth(#[from] super::synth::SynthError),
    /// A tokenizer that cannot be read.
    #[error("tokenizer `{file}`: {reason}; give the path of a Hugging Face `tokenizer.json`, or `tokenizer: byte`")]
    Tokenizer {
        /// As given in the job.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The temporary file that holds what does not fit in memory.
    #[error(
        "the temporary file in `{folder}` that holds samples beyond the memory bound: {source}; free space there or \
         set TMPDIR"
    )]
    Spool {
        /// The folder of the file.
        folder: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint whose preprocessing does not fit.
    #[error("the checkpoint's preprocessing of `{column}` cannot be used: {reason}")]
    State {
        /// The column.
        column: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl DataError {
    /// Whether a retry may succeed: a store did not answer, or a disk was full. Errors in the data themselves are
    /// permanent.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use std::io::ErrorKind;
        match self {
            Self::Unreachable { passing, .. } => *passing,
            Self::Spool { source, .. } => {
                !matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidData)
            }
            _ => false,
        }
    }
}

/// `a`, `b` and `c`.
pub(super) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut quoted: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        quoted.push(format!("{} more", names.len() - SHOWN));
    }
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded() {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(listed(&names(0)), "none");
        assert_eq!(listed(&names(1)), "`0`");
        assert_eq!(listed(&names(3)), "`0`, `1` and `2`");
        assert!(listed(&names(40)).ends_with("`11` and 28 more"));
    }
}
