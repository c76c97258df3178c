//! Whether an encoder can read its input, as far as the job file specifies the input.

use super::super::fields::modality as field;
use super::super::model::{BertSize, EncoderSpec, InputSpec};
use super::super::reader::Section;

/// Refuses an encoder that cannot read this input.
pub(super) fn fit(section: &mut Section<'_>, input: &InputSpec, encoder: &EncoderSpec) {
    let rule = match (input, encoder) {
        // The encoder itself checks its input.
        (InputSpec::Auto, _) | (_, EncoderSpec::Auto | EncoderSpec::Custom { .. }) => None,
        (InputSpec::Text { max_tokens, .. }, EncoderSpec::Bert { .. }) => too_long(*max_tokens),
        (InputSpec::Text { .. }, EncoderSpec::Text { .. }) => None,
        (InputSpec::Text { .. }, _) => Some("cannot read text; use text or bert".to_owned()),
        (_, EncoderSpec::Mlp { .. }) => None,
        (InputSpec::Features { .. }, _) => Some("cannot read features; use mlp".to_owned()),
        (_, EncoderSpec::Text { .. } | EncoderSpec::Bert { .. }) => {
            Some("reads text only; use cnn, resnet18 or vit".to_owned())
        }
        (input, EncoderSpec::Cnn { channels, .. }) => too_small(input, channels.len()),
        (input, EncoderSpec::Vit { patch, .. }) => uneven(input, *patch),
        (_, EncoderSpec::Resnet { .. }) => None,
    };
    if let Some(rule) = rule {
        section.refuse(&field::ENCODER, encoder.kind(), rule);
    }
}

/// The sizes that are given, and their unit.
fn sizes(input: &InputSpec) -> (Vec<u32>, &'static str) {
    match input {
        InputSpec::Image { height, width, .. } => (height.iter().chain(width).copied().collect(), "pixels"),
        InputSpec::Audio { mels, .. } => (vec![*mels], "mel bands"),
        _ => (Vec::new(), ""),
    }
}

fn too_small(input: &InputSpec, stages: usize) -> Option<String> {
    let (sizes, what) = sizes(input);
    let size = sizes.into_iter().min()?;
    let most = size.ilog2();
    (stages > most as usize)
        .then(|| format!("has {stages} stages, each of which halves {size} {what}; use at most {most}"))
}

fn uneven(input: &InputSpec, patch: u32) -> Option<String> {
    let (sizes, what) = sizes(input);
    let size = *sizes.iter().find(|size| !size.is_multiple_of(patch))?;
    let divides = (1..=patch).rev().find(|smaller| sizes.iter().all(|size| size.is_multiple_of(*smaller)))?;
    let fitting = size.next_multiple_of(patch);
    Some(format!("cannot divide {size} {what} into patches of {patch}; use `patch: {divides}` or {fitting} {what}"))
}

fn too_long(max_tokens: u32) -> Option<String> {
    let most = BertSize::POSITIONS;
    (max_tokens > most)
        .then(|| format!("has {most} positions, but `max_tokens` of the input is {max_tokens}; use at most {most}"))
}
