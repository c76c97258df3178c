//! Numeric fingerprints: whether two workers compute the same bits.
//!
//! On one kind of device, with one build of the software, results are the same to the last bit. Processors with other
//! vector units, other libraries and other GPUs round differently. Each worker takes the same small training step, and
//! the digest of all resulting numbers is its fingerprint. A job records the fingerprints of its workers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Hash;
use crate::ids::ModalityName;

/// Results of workers with different fingerprints differ. Shown, read and serialised as 16 lower-case hexadecimal
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NumericFingerprint(pub u64);

/// A text that is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a numeric fingerprint; it has 16 hexadecimal digits")]
pub struct BadFingerprint {
    /// The text as it was given.
    pub given: String,
}

impl From<Sha256Hash> for NumericFingerprint {
    /// The first 64 bits of it.
    fn from(Sha256Hash([a, b, c, d, e, f, g, h, ..]): Sha256Hash) -> Self {
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl fmt::Display for NumericFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NumericFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NumericFingerprint {
    type Err = BadFingerprint;
    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| BadFingerprint { given: text.to_owned() })
    }
}

impl TryFrom<String> for NumericFingerprint {
    type Error = BadFingerprint;
    fn try_from(text: String) -> Result<Self, BadFingerprint> {
        text.parse()
    }
}

impl From<NumericFingerprint> for String {
    fn from(fingerprint: NumericFingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// The largest number of fingerprints that a job records. More would not help a reader.
const MOST: usize = 16;

/// The fingerprints of the workers that have computed for a job, by modality: the first sixteen of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Numerics(BTreeMap<ModalityName, BTreeSet<NumericFingerprint>>);

impl Numerics {
    /// Records that a worker with this fingerprint computes for a modality from now on. Returns the fingerprints before
    /// it if this one is new to the job and not the first.
    pub fn note(
        &mut self,
        modality: &ModalityName,
        fingerprint: NumericFingerprint,
    ) -> Option<BTreeSet<NumericFingerprint>> {
        let before = self.all();
        if before.len() >= MOST {
            return None;
        }
        self.0.entry(modality.clone()).or_default().insert(fingerprint);
        (!before.is_empty() && !before.contains(&fingerprint)).then_some(before)
    }

    /// The fingerprints of all modalities together.
    #[must_use]
    pub fn all(&self) -> BTreeSet<NumericFingerprint> {
        self.0.values().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown() {
        let fingerprint = NumericFingerprint::from(sha256(b""));
        assert_eq!(fingerprint.to_string(), "e3b0c44298fc1c14");
        assert_eq!("e3b0c44298fc1c14".parse(), Ok(fingerprint));
        for bad in ["", "e3b0c44298fc1c1", "E3B0C44298FC1C14", "+3b0c44298fc1c14", "e3b0c44298fc1c144"] {
            assert!(bad.parse::<NumericFingerprint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_is_new_to_the_job_and_not_its_first_is_told() {
        let [audio, image] = ["audio", "image"].map(|name| ModalityName::try_from(name).expect("a name"));
        let [first, other] = [1, 2].map(NumericFingerprint);
        let mut numerics = Numerics::default();
        assert_eq!(numerics.note(&audio, first), None);
        assert_eq!(numerics.note(&image, first), None);
        assert_eq!(numerics.note(&image, other), Some([first].into()));
        assert_eq!(numerics.note(&audio, other), None);
        let json =
            r#"{"audio":["0000000000000001","0000000000000002"],"image":["0000000000000001","0000000000000002"]}"#;
        assert_eq!(serde_json::to_string(&numerics).expect("JSON"), json);
        let again: Numerics = serde_json::from_str(json).expect("JSON");
        assert_eq!(again, numerics);
    }
}
