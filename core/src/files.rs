//! The files of a checkpoint: their names, and what each holds.

use crate::ids::ModalityName;

/// W and b of the shared head.
pub const HEAD: &str = "head.safetensors";
/// The state of the head's optimizer.
pub const HEAD_STATE: &str = "head.state.safetensors";
/// P, and the window of mean features that it was computed from.
pub const PROJECTOR: &str = "projector.safetensors";

/// The longest name, in bytes.
const LONGEST: usize = 128;

/// The file of a modality's encoder, which predictions need.
#[must_use]
pub fn encoder(modality: &ModalityName) -> String {
    format!("encoder-{modality}.safetensors")
}

/// The file of the encoder's optimizer, which only training needs.
#[must_use]
pub fn encoder_state(modality: &ModalityName) -> String {
    format!("encoder-{modality}.state.safetensors")
}

/// The modality whose encoder this file holds; None for every other file.
#[must_use]
pub fn modality_of(file: &str) -> Option<&str> {
    let modality = file.strip_prefix("encoder-")?.strip_suffix(".safetensors")?;
    (!modality.ends_with(".state")).then_some(modality)
}

/// Whether this file is part of a run's digest: it holds what was learned, rather than state that only further training
/// needs.
#[must_use]
pub fn in_digest(file: &str) -> bool {
    file == HEAD || file == PROJECTOR || modality_of(file).is_some()
}

/// Whether this is a valid name for a file of a checkpoint: 1 to 128 letters, digits, `-`, `_` and `.`, not beginning
/// with a dot. Such a name cannot lead out of the checkpoint's folder.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=LONGEST).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_modality_are_names_and_lead_back_to_it() {
        let longest = "m".repeat(63);
        for name in ["a", "audio", "image-left", &longest] {
            let modality = ModalityName::try_from(name).expect("a good name");
            let (encoder, state) = (encoder(&modality), encoder_state(&modality));
            assert!(is_name(&encoder) && is_name(&state));
            assert_eq!((modality_of(&encoder), modality_of(&state)), (Some(name), None));
            assert!(in_digest(&encoder) && !in_digest(&state));
        }
        for file in [HEAD, HEAD_STATE, PROJECTOR] {
            assert!(is_name(file) && modality_of(file).is_none(), "{file}");
            assert_eq!(in_digest(file), file != HEAD_STATE, "{file}");
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        let long = "x".repeat(LONGEST + 1);
        for text in ["", ".", "..", "../head.safetensors", "a/b", "a\\b", "a b", "ä", "a\n", &long] {
            assert!(!is_name(text), "{text:?}");
        }
    }
}
