//! The errors of encoders.

use antiphon_core::ids::EncoderName;
use antiphon_data::InputShape;

/// An encoder that cannot be built, fed or restored.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    /// The kind of encoder does not read this kind of input.
    #[error("encoder `{kind}` cannot read {}; use {instead}", describe(.input))]
    WrongInput {
        /// The encoder's kind.
        kind: &'static str,
        /// The shape of the modality's samples.
        input: InputShape,
        /// The encoders that can read it, as text.
        instead: &'static str,
    },
    /// There are too many stages: each halves height and width.
    #[error(
        "encoder `cnn` has {stages} stages, which halve height and width each, but its input is only {height} × {width}; \
         use at most {most} entries in `channels`, or a larger input"
    )]
    TooManyStages {
        /// The requested number of stages.
        stages: usize,
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
        /// The largest possible number of stages.
        most: usize,
    },
    /// A patch that is larger than the input.
    #[error(
        "encoder `vit` has patches of {patch} × {patch}, but its input is only {height} × {width}; use a smaller \
         `patch` or a larger input"
    )]
    PatchTooLarge {
        /// Rows and columns of a patch.
        patch: usize,
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
    },
    /// Patches do not divide the images.
    #[error(
        "encoder `vit` cannot divide images of {height} × {width} into patches of {patch} × {patch} without a remainder; \
         use `input: {{kind: image, height: {}, width: {}}}`, or `patch: {divides}`",
        .height.next_multiple_of(*.patch), .width.next_multiple_of(*.patch)
    )]
    UnevenPatches {
        /// Rows and columns of a patch.
        patch: usize,
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
        /// The largest smaller patch that divides both.
        divides: usize,
    },
    /// Texts may have more tokens than there are positions.
    #[error(
        "encoder `bert` has {positions} positions, but texts have up to {tokens} tokens; set `max_tokens` to \
         {positions} or less"
    )]
    TextsTooLong {
        /// The largest number of tokens in a text.
        tokens: usize,
        /// Rows of the position embedding.
        positions: usize,
    },
    /// The heads do not divide the width.
    #[error("encoder `text` has width {width} and {heads} heads; use a width that is a multiple of the heads")]
    HeadsDoNotDivide {
        /// Width of the blocks.
        width: u32,
        /// Attention heads.
        heads: u32,
    },
    /// The device cannot multiply in bf16.
    #[error(
        "`precision: bf16` needs a GPU of the Ampere generation (8.0) or later, but {device}; train on such a GPU \
         (`--device cuda`), or leave `precision` at f32"
    )]
    NoBf16 {
        /// A description of the device, as a clause.
        device: &'static str,
    },
    /// A batch does not have the shape that the encoder was built for.
    #[error("the encoder received a batch of {got}, but it reads {}", describe(.expected))]
    WrongBatch {
        /// The shape that the encoder reads.
        expected: InputShape,
        /// The batch that was given, as text.
        got: String,
    },
    /// The upstream gradient does not have the shape of the features.
    #[error("the feature gradient has shape {rows} × {columns}, but the features have shape {samples} × {width}")]
    WrongGradient {
        /// Of the gradient.
        rows: usize,
        /// Of the gradient.
        columns: usize,
        /// Of the features.
        samples: usize,
        /// Of the features.
        width: usize,
    },
    /// The backward pass did not reach a parameter.
    #[error("parameter `{name}` got no gradient")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// The program does not have the encoder that a job names.
    #[error(
        "encoder `{name}` is not built into this program{}; run the program that registers it: its `worker`, `eval`, `predict` \
         and `verify`", besides(.registered)
    )]
    NotRegistered {
        /// The name in the job.
        name: EncoderName,
        /// Encoders that the program registers.
        registered: Vec<EncoderName>,
    },
    /// A registered encoder cannot be built for this job.
    #[error("encoder `{name}` cannot be built: {reason}")]
    Network {
        /// By which it is registered.
        name: EncoderName,
        /// Why the encoder refuses, as its own message.
        reason: String,
    },
    /// A registered encoder cannot compute in bf16.
    #[error("encoder `{name}` is a custom encoder, and custom encoders compute in f32; remove `precision`")]
    CustomPrecision {
        /// By which it is registered.
        name: EncoderName,
    },
    /// A registered encoder draws random numbers that are not reproducible.
    #[error(
        "encoder `{name}` gives different features for the same batch in the same step; use `Blueprint::dropout`, \
         which depends only on the step, instead of candle's dropout, which draws from the thread's generator"
    )]
    NotRepeatable {
        /// By which it is registered.
        name: EncoderName,
    },
    /// The backward pass of a registered encoder did not reach a parameter.
    #[error(
        "parameter `{name}` got no gradient: the network does not use it, or an operator has no backward pass. In candle-nn, these have none: `LayerNorm` and `RmsNorm` on contiguous input, `ops::softmax_last_dim`, rotary embeddings; use \
         `ops::layer_norm_slow`, `ops::softmax`, `GroupNorm`. If it is not to be trained, `freeze` it in the job"
    )]
    CutGradient {
        /// The parameter.
        name: String,
    },
    /// Finite differences contradict a gradient of a registered encoder.
    #[error(
        "encoder `{name}`: candle's gradient of parameter `{parameter}` is wrong. A small step along it changes the features {ratio:.2} \
         times as much as the gradient says. In candle-nn 0.11, `Conv1d` has such a gradient on the CPU: use `antiphon::conv1d`. If \
         the gradient is not meant to be the derivative (a detached tensor, a straight-through estimator), call \
         `Blueprint::skip_gradient_check`"
    )]
    NotDerivative {
        /// By which it is registered.
        name: EncoderName,
        /// The name of the parameter.
        parameter: String,
        /// The measured slope along the gradient, divided by the gradient's norm.
        ratio: f64,
    },
    /// A gradient contains NaN or infinity.
    #[error("the gradient of parameter `{name}` is not finite; a smaller learning rate or clipping may help")]
    NotFinite {
        /// The parameter.
        name: String,
    },
    /// A saved encoder or optimizer does not fit this one.
    #[error("saved tensor `{name}`: {problem}; the checkpoint belongs to another encoder or optimizer")]
    WrongTensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// candle failed.
    #[error("tensor computation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl EncoderError {
    /// Whether a retry may succeed. It may only if a device failed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Tensor(_))
    }
}

fn besides(names: &[EncoderName]) -> String {
    match names {
        [] => String::new(),
        names => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!(", which registers {}", names.join(", "))
        }
    }
}

fn describe(input: &InputShape) -> String {
    match input {
        InputShape::Features { width } => format!("features of width {width}"),
        InputShape::Grid { channels, height, width } => format!("grids of {channels} × {height} × {width}"),
        InputShape::Clip { frames, channels, height, width } => {
            format!("clips of {frames} frames of {channels} × {height} × {width}")
        }
        InputShape::Tokens { vocabulary, max_tokens, .. } => {
            format!("texts of up to {max_tokens} tokens out of {vocabulary}")
        }
    }
}
