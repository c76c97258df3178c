//! M3AE (Geng et al. 2022): one transformer for images and text, written in Flax. For images it is a vision transformer
//! with sinusoidal positions and channels last in its patches. Two naming schemes are read: PyTorch's after a
//! conversion, and Flax's own, joined by dots or slashes.

use super::assemble::Component;
use super::dialect::{Dialect, Own, numbered, replaced};

/// `encoder.blocks.0.attention.qkv_linear.weight`.
pub(super) const PYTORCH: Dialect = Dialect { read: pytorch, passes_over };

/// `encoder.Block_0.Attention_0.Dense_0.kernel`.
pub(super) const FLAX: Dialect = Dialect { read: flax, passes_over };

fn pytorch(name: &str, _: &Own) -> Option<(String, Component)> {
    const WITHIN: [(&str, &str); 6] = [
        ("layer_norm1", "norm1"),
        ("attention.qkv_linear", "attn.qkv"),
        ("attention.fc", "attn.proj"),
        ("layer_norm2", "norm2"),
        ("transformer_mlp.fc1", "mlp.fc1"),
        ("transformer_mlp.fc2", "mlp.fc2"),
    ];
    if let Some(found) = tokens(name) {
        return Some(found);
    }
    let own = match name.strip_prefix("encoder.blocks.").and_then(numbered) {
        Some((block, rest)) => format!("blocks.{block}.{}", replaced(rest, &WITHIN)?),
        None if name == "image_embedding.weight" => {
            return Some(("patch_embed.proj.weight".to_owned(), Component::Patches));
        }
        None => replaced(name, &[("encoder.layer_norm", "norm"), ("image_embedding", "patch_embed.proj")])?,
    };
    Some((own, Component::Whole))
}

fn flax(name: &str, _: &Own) -> Option<(String, Component)> {
    const WITHIN: [(&str, &str); 6] = [
        ("LayerNorm_0", "norm1"),
        ("Attention_0.Dense_0", "attn.qkv"),
        ("Attention_0.Dense_1", "attn.proj"),
        ("LayerNorm_1", "norm2"),
        ("TransformerMLP_0.fc1", "mlp.fc1"),
        ("TransformerMLP_0.fc2", "mlp.fc2"),
    ];
    if let Some(found) = tokens(name) {
        return Some(found);
    }
    let own = match name.strip_prefix("encoder.Block_").and_then(numbered) {
        Some((block, rest)) => format!("blocks.{block}.{}", replaced(rest, &WITHIN)?),
        None => replaced(name, &[("encoder.LayerNorm_0", "norm"), ("image_embedding", "patch_embed.proj")])?,
    };
    let (layer, last) = own.rsplit_once('.')?;
    match last {
        "kernel" if layer == "patch_embed.proj" => Some((format!("{layer}.weight"), Component::PatchesTransposed)),
        "kernel" => Some((format!("{layer}.weight"), Component::Transposed)),
        "scale" => Some((format!("{layer}.weight"), Component::Whole)),
        "bias" => Some((own, Component::Whole)),
        _ => None,
    }
}

/// Names that are the same in both schemes.
fn tokens(name: &str) -> Option<(String, Component)> {
    match name {
        "cls_token" => Some((name.to_owned(), Component::Whole)),
        "encoder_image_type_embedding" => Some(("pos_embed".to_owned(), Component::WavesOffset)),
        _ => None,
    }
}

/// The text part, and tensors that only pretraining uses.
fn passes_over(name: &str, _: &Own) -> bool {
    const PARTS: [&str; 5] =
        ["text_embedding", "encoder_text_type_embedding", "image_mask_embedding", "text_mask_embedding", "decoder"];
    PARTS.iter().any(|component| name.starts_with(component))
}
