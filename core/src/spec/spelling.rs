//! How a job file spells the values of the specification.

use std::fmt;

use super::model::{BertSize, EncoderSpec, Every, Pooling, Precision, ResnetDepth, SynthKind, VitSize};

impl SynthKind {
    /// As a job file spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SpokenDigits => "spoken-digits",
            Self::Features => "features",
        }
    }

    /// The columns of this data set, one per modality.
    #[must_use]
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::SpokenDigits => &["image", "audio", "text"],
            Self::Features => &["a", "b"],
        }
    }
}

impl EncoderSpec {
    /// The kinds of encoder that every program has.
    pub const BUILT_IN: &'static [&'static str] =
        &["auto", "mlp", "cnn", "text", "resnet18", "resnet34", "resnet50", "vit", "bert"];

    /// As a job file spells it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::Mlp { .. } => "mlp",
            Self::Cnn { .. } => "cnn",
            Self::Text { .. } => "text",
            Self::Resnet { depth: ResnetDepth::Eighteen } => "resnet18",
            Self::Resnet { depth: ResnetDepth::ThirtyFour } => "resnet34",
            Self::Resnet { depth: ResnetDepth::Fifty } => "resnet50",
            Self::Vit { .. } => "vit",
            Self::Bert { .. } => "bert",
            Self::Custom { name, .. } => name.as_str(),
        }
    }
}

impl Precision {
    /// As a job file spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl VitSize {
    /// As a job file spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Base => "base",
        }
    }
}

impl BertSize {
    /// As a job file spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Mini => "mini",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Base => "base",
        }
    }
}

impl Pooling {
    /// As a job file spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
        }
    }
}

impl fmt::Display for Every {
    /// As a job file spells it: `1 epoch`, `500 turns`, `end`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        match *self {
            Self::Epochs(n) => write!(f, "{n} epoch{}", plural(n)),
            Self::Turns(n) => write!(f, "{n} turn{}", plural(n)),
            Self::End => f.write_str("end"),
        }
    }
}
