//! SHA-256 of bytes, of the files of a checkpoint, and of a whole run.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files;

/// A SHA-256 hash. Shown, read and serialised as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hash(pub [u8; 32]);

/// A text that is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a SHA-256 hash; write 64 hexadecimal digits")]
pub struct BadHash {
    /// The text as it was given.
    pub given: String,
}

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Hash {
    type Err = BadHash;
    fn from_str(text: &str) -> Result<Self, BadHash> {
        let bad = || BadHash { given: text.to_owned() };
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256Hash {
    type Error = BadHash;
    fn try_from(text: String) -> Result<Self, BadHash> {
        text.parse()
    }
}

impl From<Sha256Hash> for String {
    fn from(hash: Sha256Hash) -> String {
        hash.to_string()
    }
}

/// The SHA-256 of these bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Sha256Hash {
    Sha256Hash(Sha256::digest(bytes).into())
}

/// The SHA-256 of bytes that come in blocks.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Adds the next block.
    pub fn update(&mut self, block: &[u8]) {
        self.0.update(block);
    }

    /// The hash of all blocks, one after the other.
    #[must_use]
    pub fn finish(self) -> Sha256Hash {
        Sha256Hash(self.0.finalize().into())
    }
}

/// The digest of a run, from the names and hashes of the files that hold what it learned: `head.safetensors`,
/// `projector.safetensors` and the `encoder-*.safetensors`, given in any order.
///
/// It is the SHA-256 of the text that `sha256sum head.safetensors projector.safetensors encoder-*.safetensors` prints
/// (`<hash> <name>` and a line feed for each, encoders in byte order of their names). `LC_ALL=C sha256sum
/// head.safetensors … | sha256sum` prints the same digest.
#[must_use]
pub fn run_digest<N: AsRef<str>>(files: &[(N, Sha256Hash)]) -> Sha256Hash {
    let place = |name: &str| match name {
        files::HEAD => 0,
        files::PROJECTOR => 1,
        _ => 2,
    };
    let mut sorted: Vec<(&str, &Sha256Hash)> = files.iter().map(|(name, hash)| (name.as_ref(), hash)).collect();
    sorted.sort_by_key(|(name, _)| (place(name), *name));
    let mut text = String::new();
    for (name, hash) in sorted {
        writeln!(text, "{hash}  {name}").expect("writing to a string cannot fail");
    }
    sha256(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_hash_survives_text_and_json() {
        let hash = sha256(b"");
        assert_eq!(hash.to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Sha256Hash>().expect("it is one"), hash);
        let json = serde_json::to_string(&hash).expect("it serialises");
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Sha256Hash>(&json).expect("it is one"), hash);
    }

    #[test]
    fn blocks_have_the_hash_of_the_whole() {
        let text = b"one after the other";
        for at in 0..=text.len() {
            let mut hasher = Hasher::default();
            hasher.update(&text[..at]);
            hasher.update(&text[at..]);
            assert_eq!(hasher.finish(), sha256(text));
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for bad in ["", "abc", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Sha256Hash>(), Err(BadHash { given: bad.to_owned() }));
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_of_files() {
        let file = |name: &'static str| (name, sha256(name.as_bytes()));
        let one = run_digest(&[
            file("head.safetensors"),
            file("projector.safetensors"),
            file("encoder-audio.safetensors"),
            file("encoder-image.safetensors"),
        ]);
        let other = run_digest(&[
            file("encoder-image.safetensors"),
            file("projector.safetensors"),
            file("encoder-audio.safetensors"),
            file("head.safetensors"),
        ]);
        assert_eq!(one, other);
    }

    #[test]
    fn the_digest_of_a_run_is_the_hash_of_what_sha256sum_prints() {
        let text = format!("{EMPTY}  head.safetensors\n{EMPTY}  projector.safetensors\n");
        let empty = sha256(b"");
        let digest = run_digest(&[("projector.safetensors", empty), ("head.safetensors", empty)]);
        assert_eq!(digest, sha256(text.as_bytes()));
    }
}
