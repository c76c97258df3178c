//! An encoder and the shape of its input, parsed from the command line.

use std::fmt;
use std::str::FromStr;

use antiphon_core::rng;
use antiphon_core::spec::{BertSize, EncoderSpec, Pooling, ResnetDepth, VitSize};
use antiphon_data::{BatchInput, InputShape};

/// Number of tokens in BERT's vocabulary.
const VOCABULARY: usize = 30_522;

/// An encoder and its input, as in `resnet18@1x128x128`.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    name: String,
    input: Input,
    spec: EncoderSpec,
    /// s: the width of the encoder, so that it needs no adapter.
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Features { width: usize },
    Grid { channels: usize, height: usize, width: usize },
    Tokens { length: usize },
}

/// The cases that are measured by default.
pub(super) const COMMON: [&str; 6] =
    ["resnet18@1x128x128", "resnet18@3x112x112", "vit-small@3x112x112", "bert-small@64", "mlp@512", "cnn@1x64x64"];

/// All encoders: name, default input, specification, width.
fn known() -> Vec<(&'static str, &'static str, EncoderSpec, usize)> {
    let mut known = vec![
        ("mlp", "512", EncoderSpec::Mlp { hidden: vec![512, 512], dropout: 0.0 }, 512),
        ("cnn", "1x64x64", EncoderSpec::Cnn { channels: vec![16, 32, 64], dropout: 0.0 }, 64),
        ("text", "64", EncoderSpec::Text { width: 64, layers: 2, heads: 4, dropout: 0.0 }, 64),
    ];
    let resnets = [
        ("resnet18", ResnetDepth::Eighteen, 512),
        ("resnet34", ResnetDepth::ThirtyFour, 512),
        ("resnet50", ResnetDepth::Fifty, 2048),
    ];
    known.extend(resnets.map(|(name, depth, width)| (name, "3x112x112", EncoderSpec::Resnet { depth }, width)));
    for (name, size) in [("vit-tiny", VitSize::Tiny), ("vit-small", VitSize::Small), ("vit-base", VitSize::Base)] {
        let spec = EncoderSpec::Vit { size, patch: 16, pooling: Pooling::Cls, dropout: 0.0 };
        known.push((name, "3x112x112", spec, size.dimensions().width as usize));
    }
    let berts = [
        ("bert-tiny", BertSize::Tiny),
        ("bert-mini", BertSize::Mini),
        ("bert-small", BertSize::Small),
        ("bert-medium", BertSize::Medium),
        ("bert-base", BertSize::Base),
    ];
    for (name, size) in berts {
        let spec = EncoderSpec::Bert { size, pooling: Pooling::Mean, dropout: 0.0 };
        known.push((name, "64", spec, size.dimensions().width as usize));
    }
    known
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, input) = text.split_once('@').map_or((text, None), |(name, input)| (name, Some(input)));
        let known = known();
        let Some((name, usual, spec, width)) = known.iter().find(|(known, ..)| *known == name) else {
            let names: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
            return Err(format!("there is no encoder `{name}`; use one of {}", names.join(", ")));
        };
        let input = input.unwrap_or(usual);
        let wrong = || format!("`{input}` is not an input of {name}; write for example {name}@{usual}");
        let numbers: Option<Vec<usize>> = input.split('x').map(|n| n.parse().ok().filter(|n| *n > 0)).collect();
        let input = match (spec, numbers.ok_or_else(wrong)?.as_slice()) {
            (EncoderSpec::Mlp { .. }, &[width]) => Input::Features { width },
            (EncoderSpec::Text { .. } | EncoderSpec::Bert { .. }, &[length]) => Input::Tokens { length },
            (
                EncoderSpec::Cnn { .. } | EncoderSpec::Resnet { .. } | EncoderSpec::Vit { .. },
                &[channels, height, width],
            ) => Input::Grid { channels, height, width },
            _ => return Err(wrong()),
        };
        Ok(Self { name: (*name).to_owned(), input, spec: spec.clone(), width: *width })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.name)?;
        match self.input {
            Input::Features { width: length } | Input::Tokens { length } => write!(f, "{length}"),
            Input::Grid { channels, height, width } => write!(f, "{channels}x{height}x{width}"),
        }
    }
}

impl Case {
    pub(super) fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// s.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn shape(&self) -> InputShape {
        match self.input {
            Input::Features { width } => InputShape::Features { width },
            Input::Grid { channels, height, width } => InputShape::Grid { channels, height, width },
            Input::Tokens { length } => {
                // The padding token follows the last token, and has no embedding.
                InputShape::Tokens { vocabulary: VOCABULARY + 1, max_tokens: length, padding: VOCABULARY as u32 }
            }
        }
    }

    /// A batch of noise. Token sequences have full length, without padding.
    pub(super) fn batch(&self, samples: usize) -> BatchInput {
        let dense = |shape: Vec<usize>| {
            let count = shape.iter().product();
            BatchInput::Dense { shape, data: noise().take(count).collect() }
        };
        match self.input {
            Input::Features { width } => dense(vec![samples, width]),
            Input::Grid { channels, height, width } => dense(vec![samples, channels, height, width]),
            Input::Tokens { length } => {
                let token = |x: f32| ((x + 1.0) * 0.5 * (VOCABULARY - 1) as f32) as u32;
                let ids = noise().take(samples * length).map(token).collect();
                BatchInput::Tokens { ids, lengths: vec![length as u32; samples], longest: length }
            }
        }
    }
}

/// An endless, deterministic sequence of numbers between −1 and 1.
pub(super) fn noise() -> impl Iterator<Item = f32> {
    let mut stream = rng::stream(1, &["bench".into()]);
    std::iter::repeat_with(move || (2.0 * rng::uniform(&mut stream) - 1.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_written_as_it_is_read() {
        for text in COMMON {
            assert_eq!(text.parse::<Case>().expect("a case").to_string(), text);
        }
        assert_eq!("vit-base".parse::<Case>().expect("a case").to_string(), "vit-base@3x112x112");
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for (text, message) in [
            ("resnet", "there is no encoder `resnet`; use one of mlp, cnn, text, resnet18"),
            ("resnet18@128", "`128` is not an input of resnet18; write for example resnet18@3x112x112"),
            ("mlp@0", "`0` is not an input of mlp; write for example mlp@512"),
            ("bert-tiny@64x64", "`64x64` is not an input of bert-tiny; write for example bert-tiny@64"),
        ] {
            let error = text.parse::<Case>().expect_err(text);
            assert!(error.starts_with(message), "{error}");
        }
    }
}
