//! What of a file an encoder takes, and what not.

use std::fmt;

/// Names of one kind that are worth reading.
const SHOWN: usize = 20;

/// How a file's tensors, under the encoder's names, compare with the encoder's own. Names are in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// How many fit.
    pub loaded: usize,
    /// The encoder has them and the file has not; without the adapter's, which need not be there.
    pub missing: Vec<String>,
    /// As the file calls what the encoder has no place for.
    pub unexpected: Vec<String>,
    /// Both have them, but not alike.
    pub unlike: Vec<Unlike>,
}

/// A tensor that cannot take the place of the encoder's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unlike {
    /// As the encoder calls it.
    pub name: String,
    /// Shape or type in the file.
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
            "{loaded} tensors fit, {} are missing, {} are unexpected, {} are of another shape",
            missing.len(),
            unexpected.len(),
            unlike.len()
        )?;
        let unlike: Vec<String> =
            unlike.iter().map(|Unlike { name, given, wanted }| format!("{name} {given}, not {wanted}")).collect();
        for (what, names) in [("missing", missing), ("unexpected", unexpected), ("of another shape", &unlike)] {
            list(f, what, names)?;
        }
        // What the input decides: other shapes there are no reason to take other weights.
        for (ending, remedy) in REMEDIES {
            if let Some(Unlike { name, .. }) = self.unlike.iter().find(|unlike| unlike.name.ends_with(ending)) {
                write!(f, "\n  {name}: {remedy}")?;
            }
        }
        Ok(())
    }
}

/// What to do where a parameter whose shape the input decides is of another one, by the end of its name.
const REMEDIES: [(&str, &str); 4] = [
    ("conv1.weight", "give `input: {channels: …}` as the weights were trained with, which is 3 for colour"),
    (
        "patch_embed.proj.weight",
        "give `input: {channels: …}` and `encoder: {patch: …}` as the weights were trained with",
    ),
    ("pos_embed", "give an input of the size that the weights were trained with: positions are not interpolated"),
    ("word_embeddings.weight", "give `input: {tokenizer: …}`, the tokenizer that the weights were trained with"),
];

fn list(f: &mut fmt::Formatter<'_>, what: &str, names: &[String]) -> fmt::Result {
    if names.is_empty() {
        return Ok(());
    }
    let separator = if what == "of another shape" { "; " } else { ", " };
    write!(f, "\n  {what}: {}", names[..names.len().min(SHOWN)].join(separator))?;
    match names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        Some(more) => write!(f, " and {more} more"),
        None => Ok(()),
    }
}
