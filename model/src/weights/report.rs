//! Which tensors of a file fit an encoder, and which do not.

use std::fmt;

/// The largest number of names shown of each kind.
const SHOWN: usize = 20;

/// How a file's tensors, under the encoder's names, compare with the encoder's own. Names are in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The number of tensors that fit.
    pub loaded: usize,
    /// Tensors that the encoder has and the file lacks, except those of the adapter, which are optional.
    pub missing: Vec<String>,
    /// Tensors of the file, by its names, that the encoder does not have.
    pub unexpected: Vec<String>,
    /// Tensors that both have, in different shapes or types.
    pub unlike: Vec<Unlike>,
}

/// A tensor of the file that does not fit the encoder's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlike {
    /// Its name in the encoder.
    pub name: String,
    /// The shape or type in the file.
    pub given: String,
    /// The encoder's shape.
    pub wanted: String,
}

impl Report {
    /// Whether the file has everything that the encoder has, and nothing else.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.unlike.is_empty()
    }
}

/// Counts on one line, then a line for each kind with its names.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loaded, missing, unexpected, unlike } = self;
        write!(
            f,
            "{loaded} tensors fit, {} missing, {} unexpected, {} with another shape",
            missing.len(),
            unexpected.len(),
            unlike.len()
        )?;
        let unlike: Vec<String> =
            unlike.iter().map(|Unlike { name, given, wanted }| format!("{name} {given}, not {wanted}")).collect();
        for (what, names) in [("missing", missing), ("unexpected", unexpected), ("with another shape", &unlike)] {
            list(f, what, names)?;
        }
        // The input determines these shapes, so other weights would not help.
        for (ending, remedy) in REMEDIES {
            if let Some(Unlike { name, .. }) = self.unlike.iter().find(|unlike| unlike.name.ends_with(ending)) {
                write!(f, "\n  {name}: {remedy}")?;
            }
        }
        Ok(())
    }
}

/// Remedies for parameters whose shape the input determines, by the end of the name.
const REMEDIES: [(&str, &str); 4] = [
    (
        "conv1.weight",
        "set `input: {channels: …}` to the value that the weights were trained with, which is 3 for colour",
    ),
    (
        "patch_embed.proj.weight",
        "set `input: {channels: …}` and `encoder: {patch: …}` to the values that the weights were trained with",
    ),
    ("pos_embed", "use the input size that the weights were trained with, because positions are not interpolated"),
    ("word_embeddings.weight", "set `input: {tokenizer: …}` to the tokenizer that the weights were trained with"),
];

fn list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    let separator = if what == "with another shape" { "; " } else { ", " };
    write!(f, "\n  {what}: {}", names[..names.len().min(SHOWN)].join(separator))?;
    match names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => write!(f, " and {more} more"),
        None => Ok(()),
    }
}
