//! Residual networks. The encoder's names are torchvision's, which timm and most others share.

use super::assemble::Component;
use super::dialect::{Dialect, Own, numbered};

/// `embedder.embedder.…`, `encoder.stages.0.layers.0.layer.0.convolution.weight`, `…shortcut.normalization.bias`.
pub(super) const HUGGING_FACE: Dialect = Dialect { read: hugging_face, passes_over: |_, _| false };

/// The classifier, and the batch counters beside running statistics.
pub(super) fn passed_over(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
        || ["fc.", "classifier.", "head."].iter().any(|component| name.starts_with(component))
}

fn hugging_face(name: &str, _: &Own) -> Option<(String, Component)> {
    let own = if let Some(rest) = name.strip_prefix("embedder.embedder.") {
        stage(rest, "conv1", "bn1")?
    } else {
        let (stage_at, rest) = numbered(name.strip_prefix("encoder.stages.")?)?;
        let (block, rest) = numbered(rest.strip_prefix("layers.")?)?;
        let inner = match rest.strip_prefix("shortcut.") {
            Some(rest) => stage(rest, "downsample.0", "downsample.1")?,
            None => {
                let (layer, rest) = numbered(rest.strip_prefix("layer.")?)?;
                stage(rest, &format!("conv{}", layer + 1), &format!("bn{}", layer + 1))?
            }
        };
        format!("layer{}.{block}.{inner}", stage_at + 1)
    };
    Some((own, Component::Whole))
}

/// A convolution or the normalisation after it.
fn stage(rest: &str, convolution: &str, normalisation: &str) -> Option<String> {
    match rest.split_once('.')? {
        ("convolution", rest) => Some(format!("{convolution}.{rest}")),
        ("normalization", rest) => Some(format!("{normalisation}.{rest}")),
        _ => None,
    }
}
