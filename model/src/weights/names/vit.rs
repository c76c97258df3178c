//! Vision transformers. The encoder's names are timm's, which MAE, DeiT and DINO share.

use super::assemble::Component;
use super::dialect::{Dialect, Own, numbered, replaced};

/// `class_token`, `encoder.layers.encoder_layer_0.self_attention.in_proj_weight`.
pub(super) const TORCHVISION: Dialect = Dialect { read: torchvision, passes_over: |_, _| false };

/// ViT and AST: `embeddings.cls_token`, `encoder.layer.0.attention.attention.query.weight`; newer
/// `layers.0.attention.q_proj.weight`.
pub(super) const HUGGING_FACE: Dialect = Dialect { read: hugging_face, passes_over: |_, _| false };

/// Classifiers, and tensors that only pretraining uses.
pub(super) fn passed_over(name: &str) -> bool {
    const PARTS: [&str; 8] =
        ["head.", "heads.", "head_dist.", "classifier.", "pooler.", "decoder", "mask_token", "embeddings.mask_token"];
    PARTS.iter().any(|component| name.starts_with(component))
}

/// torchvision's names.
fn torchvision(name: &str, _: &Own) -> Option<(String, Component)> {
    const AROUND: [(&str, &str); 4] = [
        ("class_token", "cls_token"),
        ("conv_proj", "patch_embed.proj"),
        ("encoder.pos_embedding", "pos_embed"),
        ("encoder.ln", "norm"),
    ];
    const WITHIN: [(&str, &str); 9] = [
        ("ln_1", "norm1"),
        ("self_attention.in_proj_weight", "attn.qkv.weight"),
        ("self_attention.in_proj_bias", "attn.qkv.bias"),
        ("self_attention.out_proj", "attn.proj"),
        ("ln_2", "norm2"),
        ("mlp.0", "mlp.fc1"),
        ("mlp.linear_1", "mlp.fc1"),
        ("mlp.3", "mlp.fc2"),
        ("mlp.linear_2", "mlp.fc2"),
    ];
    let own = match name.strip_prefix("encoder.layers.encoder_layer_").and_then(numbered) {
        Some((block, rest)) => format!("blocks.{block}.{}", replaced(rest, &WITHIN)?),
        None => replaced(name, &AROUND)?,
    };
    Some((own, Component::Whole))
}

fn hugging_face(name: &str, _: &Own) -> Option<(String, Component)> {
    const AROUND: [(&str, &str); 4] = [
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("layernorm", "norm"),
    ];
    const WITHIN: [(&str, &str); 8] = [
        ("layernorm_before", "norm1"),
        ("attention.output.dense", "attn.proj"),
        ("attention.o_proj", "attn.proj"),
        ("layernorm_after", "norm2"),
        ("intermediate.dense", "mlp.fc1"),
        ("mlp.fc1", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("mlp.fc2", "mlp.fc2"),
    ];
    const PROJECTIONS: [[&str; 2]; 3] = [
        ["attention.attention.query", "attention.q_proj"],
        ["attention.attention.key", "attention.k_proj"],
        ["attention.attention.value", "attention.v_proj"],
    ];
    let layer = name.strip_prefix("encoder.layer.").or_else(|| name.strip_prefix("layers."));
    let Some((block, rest)) = layer.and_then(numbered) else {
        return replaced(name, &AROUND).map(|own| (own, Component::Whole));
    };
    let (own, component) = match third(rest, &PROJECTIONS, "attn.qkv") {
        Some(found) => found,
        None => (replaced(rest, &WITHIN)?, Component::Whole),
    };
    Some((format!("blocks.{block}.{own}"), component))
}

/// Query, key or value, each under one of several names.
pub(super) fn third<const N: usize>(name: &str, thirds: &[[&str; N]; 3], own: &str) -> Option<(String, Component)> {
    thirds.iter().enumerate().find_map(|(at, foreign)| {
        foreign.iter().find_map(|foreign| replaced(name, &[(foreign, own)])).map(|own| (own, Component::Third(at)))
    })
}
