//! Reading job files, from a path or standard input.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use antiphon_core::spec::{FieldReport, JobSpec, KnownEncoders, Override, SpecErrors, parse_knowing};
use antiphon_model::custom::Encoders;

/// Why a job file is not a valid job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobFileError {
    /// The file cannot be read.
    #[error("cannot read the job file {file}: {error}; {}", remedy(.error))]
    Unreadable {
        /// The job file.
        file: String,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The file is not UTF-8.
    #[error("{file}: byte {valid} is not valid UTF-8; save the job file as UTF-8")]
    NotText {
        /// The job file.
        file: String,
        /// Number of bytes before the first invalid one.
        valid: usize,
    },
    /// The file is not a valid job.
    #[error(transparent)]
    NotAJob(#[from] SpecErrors),
}

/// How to fix a job file that cannot be read.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "correct the path, or give - to read standard input",
        io::ErrorKind::IsADirectory => "name a file in this folder",
        _ => "make the file readable, or name another one",
    }
}

/// The largest number of bytes that are read of a job file. The limit of the specification is lower.
const MOST_BYTES: u64 = 4 << 20;

/// Reads a job file, with variables from the environment, and explains its fields. The job may use the registered
/// `encoders`.
///
/// # Errors
/// The file cannot be read, or is not a valid job.
pub(crate) fn load(
    job: &Path,
    set: &[Override],
    encoders: &Encoders,
) -> Result<(JobSpec, Vec<FieldReport>), JobFileError> {
    let (file, bytes) = if job == Path::new("-") {
        ("standard input".to_owned(), read(io::stdin().lock()))
    } else {
        (job.display().to_string(), fs::File::open(job).and_then(read))
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => return Err(JobFileError::Unreadable { file, error }),
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            return Err(JobFileError::NotText { file, valid: error.utf8_error().valid_up_to() });
        }
    };
    let encoders = KnownEncoders::Registered(encoders.names());
    Ok(parse_knowing(&text, &file, set, &|name| std::env::var(name).ok(), encoders)?)
}

fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
