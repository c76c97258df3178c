//! CAV-MAE (Gong et al. 2023): two transformers, for sound and images, that share the last block. An encoder with one
//! channel reads spectrograms and uses the audio branch. Any other uses the visual branch.
//!
//! The blocks of a branch are `blocks_a` or `blocks_v`, then `blocks_u` with that branch's own norms. The branch
//! embedding is added to its positions. The file has no class token.

use super::assemble::Component;
use super::dialect::{Dialect, Own, numbered};

pub(super) const CAV_MAE: Dialect = Dialect { read, passes_over };

/// Blocks per branch in the only published model, of twelve. The remaining block is shared.
const BLOCKS: usize = 11;

fn branch(own: &Own) -> char {
    if own.shape("patch_embed.proj.weight").is_some_and(|shape| shape.get(1) == Some(&1)) { 'a' } else { 'v' }
}

fn read(name: &str, own: &Own) -> Option<(String, Component)> {
    let branch = branch(own);
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    let (first, of) = first.rsplit_once('_')?;
    match (first, of) {
        ("patch_embed", of) if of.starts_with(branch) => Some((format!("patch_embed.{rest}"), Component::Whole)),
        ("pos_embed", of) if of.starts_with(branch) => Some(("pos_embed".to_owned(), Component::Positions)),
        ("modality", of) if of.starts_with(branch) => Some(("pos_embed".to_owned(), Component::PositionOffset)),
        ("norm", of) if of.starts_with(branch) => Some((format!("norm.{rest}"), Component::Whole)),
        ("blocks", of) if of.starts_with(branch) => {
            let (block, rest) = numbered(rest)?;
            let of_other_use = ["norm1_", "norm2_"].iter().any(|norm| rest.starts_with(norm));
            (!of_other_use).then(|| (format!("blocks.{block}.{rest}"), Component::Whole))
        }
        ("blocks", "u") => {
            let (block, rest) = numbered(rest)?;
            common(rest, branch).map(|rest| (format!("blocks.{}.{rest}", BLOCKS + block), Component::Whole))
        }
        _ => None,
    }
}

/// Names within a shared block: its norms belong to a branch, everything else is shared.
fn common(rest: &str, branch: char) -> Option<String> {
    if !rest.starts_with("norm") {
        return Some(rest.to_owned());
    }
    let (norm, last) = rest.split_once('.')?;
    norm.strip_suffix(branch).and_then(|norm| norm.strip_suffix('_')).map(|norm| format!("{norm}.{last}"))
}

/// The other branch, norms for the combined use of both branches, and the decoder.
fn passes_over(name: &str, own: &Own) -> bool {
    const PARTS: [&str; 8] =
        ["patch_embed_", "pos_embed_", "modality_", "blocks_", "norm_", "norm.", "decoder_", "mlp_head"];
    PARTS.iter().any(|component| name.starts_with(component)) && read(name, own).is_none()
}
