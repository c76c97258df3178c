//! Encoders, and their pretrained weights.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::EncoderName;

/// The network f_m of a modality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum EncoderSpec {
    /// `mlp` for features, `cnn` for images and audio, `text` for text, with that kind's defaults.
    Auto,
    /// Fully connected layers with ReLU between them.
    Mlp {
        /// Widths of the hidden layers.
        hidden: Vec<u32>,
        /// Dropout after each hidden layer, 0 ≤ p < 1.
        dropout: f64,
    },
    /// 3×3 convolutions with batch norm, ReLU and 2×2 pooling.
    Cnn {
        /// Output channels of each stage; every stage halves height and width.
        channels: Vec<u32>,
        /// Dropout before the adapter, 0 ≤ p < 1.
        dropout: f64,
    },
    /// Embedding and transformer blocks, mean pooled over all tokens but padding.
    Text {
        /// Width of the embedding and the blocks; a multiple of `heads`.
        width: u32,
        /// Transformer blocks.
        layers: u32,
        /// Attention heads.
        heads: u32,
        /// Dropout in the blocks, 0 ≤ p < 1.
        dropout: f64,
    },
    /// A residual network of 3×3 convolutions (He et al. 2016) as in torchvision, without its last layer.
    Resnet {
        /// The number of layers.
        depth: ResnetDepth,
    },
    /// A vision transformer (Dosovitskiy et al. 2021) over patches of an image or spectrogram.
    Vit {
        /// Width, blocks and heads.
        size: VitSize,
        /// Rows and columns of a patch, 1 to 64. It divides the rows and columns of images, and the mel bands. Frames
        /// of a spectrogram that do not fill a patch are ignored.
        patch: u32,
        /// How token features become one vector.
        pooling: Pooling,
        /// Dropout in the blocks, 0 ≤ p < 1.
        dropout: f64,
    },
    /// BERT (Devlin et al. 2019) over tokens.
    Bert {
        /// Width, layers and heads.
        size: BertSize,
        /// How token features become one vector.
        pooling: Pooling,
        /// Dropout after the embedding and in the layers, 0 ≤ p < 1.
        dropout: f64,
    },
    /// An encoder that the program registers besides the built-in ones.
    Custom {
        /// The name under which it is registered.
        name: EncoderName,
        /// The options in the job file. The encoder itself checks them, so a worker reports errors in them.
        options: BTreeMap<String, OptionValue>,
    },
}

/// The value of an option of a custom encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// True or false.
    Flag(bool),
    /// A whole number from 0.
    Whole(u64),
    /// A finite number.
    Number(f64),
    /// Text.
    Text(String),
    /// A list of option values.
    List(Vec<OptionValue>),
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Whole(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "`{text}`"),
            Self::List(values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
        }
    }
}

/// The number format in which an encoder computes. Its features, its parameters, their gradients and its optimizer's
/// moments have 32 bits in both formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits throughout.
    #[default]
    F32,
    /// bfloat16 between layers and as factors of products: 16 bits with the exponent range of 32-bit floats. Sums have
    /// 32 bits. On GPUs only.
    Bf16,
}

/// The number of layers with weights in a residual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResnetDepth {
    /// 18, of basic blocks.
    Eighteen,
    /// 34, of basic blocks.
    ThirtyFour,
    /// 50, of bottlenecks.
    Fifty,
}

/// Sizes of a vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VitSize {
    /// 192 wide, 12 blocks, 3 heads.
    Tiny,
    /// 384 wide, 12 blocks, 6 heads.
    Small,
    /// 768 wide, 12 blocks, 12 heads.
    Base,
}

/// Sizes of BERT (Turc et al. 2019).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BertSize {
    /// 128 wide, 2 layers, 2 heads.
    Tiny,
    /// 256 wide, 4 layers, 4 heads.
    Mini,
    /// 512 wide, 4 layers, 8 heads.
    Small,
    /// 512 wide, 8 layers, 8 heads.
    Medium,
    /// 768 wide, 12 layers, 12 heads.
    Base,
}

/// Dimensions of a transformer. Its feed-forward layers are four times as wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransformerSize {
    /// Numbers per token.
    pub width: u32,
    /// The number of blocks.
    pub layers: u32,
    /// Attention heads per block; a divisor of `width`.
    pub heads: u32,
}

impl VitSize {
    /// Its dimensions.
    #[must_use]
    pub const fn dimensions(self) -> TransformerSize {
        let (width, layers, heads) = match self {
            Self::Tiny => (192, 12, 3),
            Self::Small => (384, 12, 6),
            Self::Base => (768, 12, 12),
        };
        TransformerSize { width, layers, heads }
    }
}

impl BertSize {
    /// Rows of the position embedding: the largest number of tokens of a text.
    pub const POSITIONS: u32 = 512;

    /// Its dimensions.
    #[must_use]
    pub const fn dimensions(self) -> TransformerSize {
        let (width, layers, heads) = match self {
            Self::Tiny => (128, 2, 2),
            Self::Mini => (256, 4, 4),
            Self::Small => (512, 4, 8),
            Self::Medium => (512, 8, 8),
            Self::Base => (768, 12, 12),
        };
        TransformerSize { width, layers, heads }
    }
}

/// How a transformer's token features become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The extra first token.
    Cls,
    /// The mean over the input: the patches, or all tokens of a text.
    Mean,
}

/// Pretrained weights of an encoder, and which parameters are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferSpec {
    /// Pretrained weights. None means random weights from the job's seed.
    pub weights: Option<WeightsSpec>,
    /// Patterns of parameter names, with `*` and `?`; those parameters are not trained.
    pub freeze: Vec<String>,
    /// The adapter's learning rate, as a multiple of the optimizer's. Above 0.
    pub adapter_lr: f64,
}

impl Default for TransferSpec {
    fn default() -> Self {
        Self { weights: None, freeze: Vec::new(), adapter_lr: 1.0 }
    }
}

/// A file of pretrained weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsSpec {
    /// Path or URL of a safetensors file or of a PyTorch state dict.
    pub from: String,
    /// The file's SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: Option<String>,
    /// Whether the file must hold exactly the encoder's parameters, except those of the adapter.
    pub strict: bool,
}
