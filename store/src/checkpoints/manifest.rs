//! The manifest lists the files of a checkpoint and marks the checkpoint as complete.

use std::collections::BTreeMap;

use antiphon_core::digest::{Sha256Hash, run_digest};
use antiphon_core::files::{in_digest, is_name};
use antiphon_core::ids::{JobId, ModalityName, Term, Turn};
use antiphon_core::numerics::Numerics;
use antiphon_core::turn::SplitSizes;
use serde::{Deserialize, Serialize};

/// Name of the manifest inside a checkpoint's folder.
pub const MANIFEST: &str = "manifest.json";

/// The format version that this software reads and writes.
pub const FORMAT: u32 = 2;

/// The manifest of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format version, [`FORMAT`].
    pub format: u32,
    /// The job.
    pub job: JobId,
    /// The term of the coordinator that wrote it.
    pub term: Term,
    /// Turns applied so far.
    pub turn: Turn,
    /// Epochs of the job that are complete.
    pub epoch: u64,
    /// The job's specification with all defaults.
    pub specification: serde_json::Value,
    /// Size and hash of each file, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// The score by which checkpoints are compared, if this state was evaluated on the validation split; higher is
    /// better.
    #[serde(default)]
    pub score: Option<f64>,
    /// The weights of the modalities that were most accurate on the validation split, if they were tuned.
    #[serde(default)]
    pub fusion_weights: Option<BTreeMap<ModalityName, f64>>,
    /// Samples of each split that each modality was trained with.
    #[serde(default)]
    pub samples: Option<BTreeMap<ModalityName, SplitSizes>>,
    /// The numeric fingerprints of the workers that have computed for the job.
    #[serde(default)]
    pub numerics: Numerics,
    /// The state of the turn machine, for the version that wrote it.
    pub state: serde_json::Value,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The size in bytes.
    pub size: u64,
    /// The SHA-256 of its bytes.
    pub sha256: Sha256Hash,
}

/// The format version alone. It is read first, so that another format is reported as such.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    /// Whether another manifest describes the same state of the same job. Its term may differ.
    pub(super) fn holds_the_same(&self, other: &Self) -> bool {
        let what = |manifest: &Self| (manifest.job.clone(), manifest.turn, manifest.files.clone());
        what(self) == what(other) && self.specification == other.specification
    }

    /// The digest of the run at this turn, as `sha256:…`. See [`run_digest`].
    #[must_use]
    pub fn digest(&self) -> String {
        let files = self.files.iter().filter(|(name, _)| in_digest(name));
        let hashes: Vec<(&str, Sha256Hash)> = files.map(|(name, entry)| (name.as_str(), entry.sha256)).collect();
        format!("sha256:{}", run_digest(&hashes))
    }

    /// The stored text: indented JSON that ends in a line break.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a manifest's maps have text keys");
        format!("{text}\n")
    }

    /// The manifest in `bytes`, or what is wrong with it.
    ///
    /// # Errors
    /// If the text is not JSON, has another format version, has a missing or wrong field, or has a bad file name.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let Format { format } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if format != FORMAT {
            return Err(format!(
                "its format is {format}, but this version reads format {FORMAT}; \
                 use the version of antiphon that wrote it"
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match manifest.files.keys().find(|name| !is_name(name)) {
            None => Ok(manifest),
            Some(name) => Err(format!("{name:?} is not a file name")),
        }
    }
}
