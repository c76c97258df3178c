//! The cases that `reference.py` writes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use antiphon_core::spec::EncoderSpec;
use antiphon_data::{BatchInput, Decoded, InputShape};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

pub(crate) type Named = BTreeMap<String, Tensor>;

/// Numbers at some positions of each tensor, by the file's names.
pub(crate) type Samples = BTreeMap<String, BTreeMap<usize, f64>>;

/// The model's initial values, by its library's names.
pub(crate) enum Weights {
    Formula(Named),
    File(PathBuf),
}

/// One encoder on one batch.
pub(crate) struct Case {
    pub(crate) encoder: EncoderSpec,
    pub(crate) shape: InputShape,
    pub(crate) samples: usize,
    lengths: Vec<usize>,
    pub(crate) weights: Weights,
    /// (B, s), row-major.
    pub(crate) features: Vec<f64>,
    pub(crate) evaluated: Vec<f64>,
    pub(crate) gradients: Samples,
    /// The values after one step.
    pub(crate) buffers: Samples,
}

#[derive(Deserialize)]
struct About {
    encoder: EncoderSpec,
    shape: InputShape,
    samples: usize,
    #[serde(default)]
    lengths: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    Golden {
        weights: BTreeMap<String, Vec<usize>>,
        features: Vec<f64>,
        evaluated: Vec<f64>,
        gradients: BTreeMap<String, Vec<(usize, f64)>>,
        buffers: BTreeMap<String, Vec<(usize, f64)>>,
    },
    Whole {
        weights: PathBuf,
        reference: PathBuf,
    },
}

impl Case {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("it is there");
        let About { encoder, shape, samples, lengths } = serde_json::from_str(&text).expect("a case");
        let (weights, features, evaluated, gradients, buffers) = match serde_json::from_str(&text).expect("a case") {
            Numbers::Golden { weights, features, evaluated, gradients, buffers } => {
                let known = |samples: BTreeMap<String, Vec<(usize, f64)>>| -> Samples {
                    samples.into_iter().map(|(name, pairs)| (name, pairs.into_iter().collect())).collect()
                };
                let tensors = weights.iter().map(|(name, shape)| (name.clone(), formula(name, shape))).collect();
                (Weights::Formula(tensors), features, evaluated, known(gradients), known(buffers))
            }
            Numbers::Whole { weights, reference } => {
                let tensors = candle_core::safetensors::load(reference, &Device::Cpu).expect("tensors");
                let under = |start: &str| -> Samples {
                    let named = tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(start)?, tensor)));
                    named
                        .map(|(name, tensor)| (name.to_owned(), doubles(tensor).into_iter().enumerate().collect()))
                        .collect()
                };
                let [features, evaluated] = ["features", "evaluated"].map(|name| doubles(&tensors[name]));
                (Weights::File(weights), features, evaluated, under("gradients."), under("buffers."))
            }
        };
        Self { encoder, shape, samples, lengths, weights, features, evaluated, gradients, buffers }
    }

    /// s
    pub(crate) fn width(&self) -> usize {
        self.features.len() / self.samples
    }

    pub(crate) fn input(&self) -> BatchInput {
        let count = self.shape.size();
        let decoded = match self.shape {
            InputShape::Tokens { vocabulary, .. } => {
                let longest = *self.lengths.iter().max().expect("there are texts");
                let words = mixed("input", self.samples * longest);
                let ids: Vec<u32> = words.map(|word| word % (vocabulary as u32 - 1)).collect();
                let texts = ids.chunks(longest).zip(&self.lengths);
                texts.map(|(text, length)| Decoded::Tokens(text[..*length].to_vec())).collect()
            }
            InputShape::Grid { .. } | InputShape::Clip { .. } | InputShape::Features { .. } => {
                let values: Vec<f32> = numbers("input", self.samples * count).into_iter().map(|v| v as f32).collect();
                values.chunks(count).map(|sample| Decoded::Dense(sample.to_vec())).collect()
            }
        };
        BatchInput::stack(&self.shape, decoded)
    }
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().and_then(|flat| flat.to_dtype(DType::F64)?.to_vec1()).expect("numbers")
}

pub(crate) fn shapes(tensors: &Named) -> BTreeMap<String, Vec<usize>> {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect()
}

/// As in `reference.py`.
fn mixed(name: &str, count: usize) -> impl Iterator<Item = u32> {
    let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let start = name.bytes().fold(0x811C_9DC5, hash);
    (0..count as u32).map(move |i| {
        let mut word = i.wrapping_mul(0x9E37_79B9).wrapping_add(start);
        for (shift, factor) in [(16, 0x85EB_CA6B), (13, 0xC2B2_AE35)] {
            word = (word ^ (word >> shift)).wrapping_mul(factor);
        }
        word ^ (word >> 16)
    })
}

/// As in `reference.py`.
pub(crate) fn numbers(name: &str, count: usize) -> Vec<f64> {
    mixed(name, count).map(|word| f64::from(word >> 8) / f64::from(1 << 23) - 1.0).collect()
}

/// As in `reference.py`.
fn formula(name: &str, shape: &[usize]) -> Tensor {
    let spread = |value: f64| match shape {
        [_, inputs @ ..] if name.ends_with("weight") && !inputs.is_empty() => {
            value * (3.0 / inputs.iter().product::<usize>() as f64).sqrt()
        }
        _ if name.ends_with("weight") || name.ends_with("running_var") => 1.0 + value * 0.25,
        _ => value * 0.125,
    };
    let count = shape.iter().product();
    let values: Vec<f32> = numbers(name, count).into_iter().map(|value| spread(value) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many as the shape has")
}
