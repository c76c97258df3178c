//! From the name of a file of weights to the file. A local file is read directly; a remote file is fetched once and
//! cached.
//!
//! The name of a cached file is a hash of its URL and of the SHA-256 that the job expects. The file gets this name only
//! when it is complete and verified. So workers that fetch it at the same time do not disturb each other, and an
//! aborted fetch leaves no file that looks complete. Its own SHA-256 is stored beside it (`.sha256`), so later damage
//! is detected even if the job names no SHA-256.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon_core::digest::sha256;
use antiphon_core::spec::WeightsSpec;
use antiphon_data::DataError;
use antiphon_data::source::{self, Source};
use antiphon_data::stores::Stores;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::time::Instant;
use tracing::{info, warn};

use super::WeightsError;
use super::file::io_reason;

/// The number of bytes per request.
const BLOCK: u64 = 16 << 20;
/// The interval at which a long fetch logs its progress.
const SAY: Duration = Duration::from_secs(2);

/// The cache folder of fetched files.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: Option<PathBuf>,
    stores: Stores,
}

impl Cache {
    /// A cache in this folder, which is created when needed, for files from `stores`.
    #[must_use]
    pub fn at(folder: PathBuf, stores: Stores) -> Self {
        Self { folder: Some(folder), stores }
    }

    /// `$ANTIPHON_CACHE`, else `$XDG_CACHE_HOME/antiphon/weights`, else `~/.cache/antiphon/weights`.
    #[must_use]
    pub fn from_environment(stores: Stores) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let below = |folder: PathBuf| folder.join("antiphon").join("weights");
        let folder = variable("ANTIPHON_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(below))
            .or_else(|| variable("HOME").map(|home| below(home.join(".cache"))));
        Self { folder, stores }
    }

    /// The path of the file that a job names. It is fetched if necessary, and checked against its SHA-256.
    ///
    /// # Errors
    /// If the file cannot be reached, the folder cannot be written to, or the file has another hash than expected.
    pub async fn fetch(&self, weights: &WeightsSpec) -> Result<PathBuf, WeightsError> {
        if let Some(path) = local(&weights.from) {
            check(&path, &weights.from, weights.sha256.as_deref())?;
            return Ok(path);
        }
        let kept = self.folder()?.join(kept_name(weights));
        if let Ok(noted) = std::fs::read_to_string(note_beside(&kept))
            && kept.is_file()
        {
            match check(&kept, &weights.from, Some(noted.trim())) {
                Ok(()) => return Ok(kept),
                Err(error) => {
                    warn!(%error, kept = %kept.display(), "the cached weights are damaged; fetching them again")
                }
            }
        }
        let [source] =
            <[Source; 1]>::try_from(source::resolve(std::slice::from_ref(&weights.from), &self.stores).await?)
                .map_err(|found| several(&weights.from, found.len()))?;
        self.download(&source, weights, &kept).await?;
        Ok(kept)
    }

    fn folder(&self) -> Result<&Path, WeightsError> {
        let unknown = || WeightsError::Cache {
            folder: "~/.cache/antiphon/weights".to_owned(),
            reason: "there is no home folder to put it in".to_owned(),
        };
        self.folder.as_deref().ok_or_else(unknown)
    }

    async fn download(&self, source: &Source, weights: &WeightsSpec, kept: &Path) -> Result<(), WeightsError> {
        let folder = self.folder()?;
        let failed = |error: std::io::Error| WeightsError::Cache {
            folder: folder.display().to_string(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
        let (mut hasher, mut said) = (Sha256::new(), Instant::now());
        for start in (0..source.size()).step_by(BLOCK as usize) {
            let bytes = source.read(start..source.size().min(start + BLOCK)).await?;
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(failed)?;
            if said.elapsed() >= SAY {
                said = Instant::now();
                info!(
                    weights = source.url(),
                    mebibytes = (start + bytes.len() as u64) >> 20,
                    of = source.size() >> 20,
                    "fetching pretrained weights"
                );
            }
        }
        let found = hex(&hasher.finalize());
        matches(source.url(), &found, weights.sha256.as_deref())?;
        file.as_file().sync_all().map_err(failed)?;
        std::fs::write(note_beside(kept), found).map_err(failed)?;
        file.persist(kept).map_err(|error| failed(error.error))?;
        info!(weights = source.url(), kept = %kept.display(), "pretrained weights were fetched and cached");
        Ok(())
    }
}

/// The path of a local file, given as a path or URL. None for a remote file.
fn local(name: &str) -> Option<PathBuf> {
    match name.split_once("://") {
        None => Some(PathBuf::from(name)),
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
    }
}

fn kept_name(weights: &WeightsSpec) -> String {
    let expected = weights.sha256.as_deref().unwrap_or_default();
    sha256(format!("{}\n{expected}", weights.from).as_bytes()).to_string()
}

/// The file that stores the SHA-256 of a cached file.
fn note_beside(kept: &Path) -> PathBuf {
    kept.with_extension("sha256")
}

fn several(name: &str, found: usize) -> DataError {
    DataError::Location { location: name.to_owned(), reason: format!("it matches {found} files; name one") }
}

/// Compares a file, called `name` in messages, with its expected hash, if there is one.
fn check(path: &Path, name: &str, expected: Option<&str>) -> Result<(), WeightsError> {
    let unreadable =
        |error: std::io::Error| WeightsError::Unreadable { file: name.to_owned(), reason: io_reason(&error) };
    let mut file = File::open(path).map_err(unreadable)?;
    if expected.is_none() {
        return Ok(());
    }
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(unreadable)?;
        if read == 0 {
            return matches(name, &hex(&hasher.finalize()), expected);
        }
        hasher.update(&buffer[..read]);
    }
}

fn matches(file: &str, found: &str, expected: Option<&str>) -> Result<(), WeightsError> {
    match expected.filter(|expected| *expected != found) {
        None => Ok(()),
        Some(expected) => {
            Err(WeightsError::Digest { file: file.to_owned(), expected: expected.to_owned(), found: found.to_owned() })
        }
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
