//! BERT. The encoder's names are Hugging Face's, except that query, key and value are one tensor.

use super::assemble::Component;
use super::dialect::{Dialect, Own, numbered};
use super::vit::third;

/// `encoder.layer.0.attention.self.query.weight`; the oldest files use `gamma` and `beta` for a norm's weight and bias.
pub(super) const HUGGING_FACE: Dialect = Dialect { read: hugging_face, passes_over: |_, _| false };

/// The layers after the encoder, and the list of all positions, which is stored like a parameter.
pub(super) fn passed_over(name: &str) -> bool {
    const PARTS: [&str; 5] = ["pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids"];
    PARTS.iter().any(|component| name.starts_with(component))
}

fn hugging_face(name: &str, own: &Own) -> Option<(String, Component)> {
    const PROJECTIONS: [[&str; 1]; 3] = [["attention.self.query"], ["attention.self.key"], ["attention.self.value"]];
    let name = match name.rsplit_once('.') {
        Some((layer, "gamma")) => format!("{layer}.weight"),
        Some((layer, "beta")) => format!("{layer}.bias"),
        _ => name.to_owned(),
    };
    if let Some((layer, rest)) = name.strip_prefix("encoder.layer.").and_then(numbered)
        && let Some((found, component)) = third(rest, &PROJECTIONS, "attention.self.qkv")
    {
        return Some((format!("encoder.layer.{layer}.{found}"), component));
    }
    own.shape(&name).map(|_| (name, Component::Whole))
}
