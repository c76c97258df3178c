//! The manifest: what a checkpoint holds, and that it is complete.

use std::collections::BTreeMap;

use antiphon_core::digest::{Sha256Hash, run_digest};
use antiphon_core::files::{in_digest, is_name};
use antiphon_core::ids::{JobId, ModalityName, Term, Turn};
use antiphon_core::numerics::Numerics;
use antiphon_core::turn::SplitSizes;
use serde::{Deserialize, Serialize};

/// Name of the manifest inside a checkpoint's folder.
pub const MANIFEST: &str = "manifest.json";

/// The format that this software writes, and the newest that it reads.
pub const FORMAT: u32 = 2;

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The job.
    pub job: JobId,
    /// Of the coordinator that wrote it.
    pub term: Term,
    /// Turns applied so far.
    pub turn: Turn,
    /// Epochs of the job that are complete.
    pub epoch: u64,
    /// The job's specification, every default written out.
    pub specification: serde_json::Value,
    /// File name to size and hash.
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
    /// How the workers that have computed for the job round.
    #[serde(default)]
    pub numerics: Numerics,
    /// The state of the turn machine, for the version that wrote it.
    pub state: serde_json::Value,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Bytes.
    pub size: u64,
    /// Of its bytes.
    pub sha256: Sha256Hash,
}

/// Read first, so that another format is reported as such.
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

    /// The digest of the run as it was at this turn, as `sha256:…`; see [`run_digest`].
    #[must_use]
    pub fn digest(&self) -> String {
        let files = self.files.iter().filter(|(name, _)| in_digest(name));
        let hashes: Vec<(&str, Sha256Hash)> = files.map(|(name, entry)| (name.as_str(), entry.sha256)).collect();
        format!("sha256:{}", run_digest(&hashes))
    }

    /// The text that is stored: JSON for people to read, ending in a line break.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a manifest's maps have text keys");
        format!("{text}\n")
    }

    /// The manifest in `bytes`, or what is wrong with it.
    ///
    /// # Errors
    /// Not JSON, another format, a field that is missing or wrong, or a bad file name.
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
