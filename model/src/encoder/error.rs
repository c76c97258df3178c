//! What can go wrong with an encoder.

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
        /// What the modality's data are.
        input: InputShape,
        /// What would do.
        instead: &'static str,
    },
    /// Every stage halves height and width, and nothing would be left.
    #[error(
        "encoder `cnn` has {stages} stages, which halve height and width each, but its input is only {height} × {width}; \
         use at most {most} entries in `channels`, or a larger input"
    )]
    TooManyStages {
        /// Stages asked for.
        stages: usize,
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
        /// Stages that are possible.
        most: usize,
    },
    /// A patch that is larger than the input.
    #[error(
        "encoder `vit` cuts patches of {patch} × {patch} out of an input of {height} × {width}; use a smaller `patch` or a larger input"
    )]
    PatchTooLarge {
        /// Rows and columns of a patch.
        patch: usize,
        /// Rows of the input.
        height: usize,
        /// Columns of the input.
        width: usize,
    },
    /// Images that patches do not fill.
    #[error(
        "encoder `vit` cuts images of {height} × {width} into patches of {patch} × {patch}, which does not come out even; \
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
        /// The largest smaller patch that fills it.
        divides: usize,
    },
    /// Texts that may be longer than there are positions.
    #[error(
        "encoder `bert` has {positions} positions, and texts have up to {tokens} tokens; set `max_tokens` to {positions} or less"
    )]
    TextsTooLong {
        /// Tokens that a text may have.
        tokens: usize,
        /// Rows of the table of positions.
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
    /// The device does not multiply in 16 bits.
    #[error(
        "`precision: bf16` is computed on CUDA cards of the Ampere generation (8.0) or later, and {device}; train on such a card \
         (`--device cuda`), or leave `precision` at f32"
    )]
    NoBf16 {
        /// What it is instead.
        device: &'static str,
    },
    /// A batch is not of the shape that the encoder was built for.
    #[error("a batch of {got} was given to an encoder of {}", describe(.expected))]
    WrongBatch {
        /// What the encoder reads.
        expected: InputShape,
        /// What came.
        got: String,
    },
    /// An upstream gradient of another shape than the features.
    #[error("a feature gradient of {rows} × {columns} came for features of {samples} × {width}")]
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
    /// The backward pass did not reach a parameter: an operator cut the graph.
    #[error("parameter `{name}` got no gradient")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// A job names an encoder that the program does not have.
    #[error(
        "encoder `{name}` is not built into this program{}; run the program that registers it: its `worker`, `eval`, `predict` \
         and `verify`", besides(.registered)
    )]
    NotRegistered {
        /// As the job names it.
        name: EncoderName,
        /// Encoders that the program registers.
        registered: Vec<EncoderName>,
    },
    /// A registered encoder cannot be built for this job.
    #[error("encoder `{name}` cannot be built: {reason}")]
    Network {
        /// By which it is registered.
        name: EncoderName,
        /// In its own words.
        reason: String,
    },
    /// A registered encoder in 16 bits.
    #[error("encoder `{name}` is registered by this program, and such encoders compute in f32; leave `precision` out")]
    CustomPrecision {
        /// By which it is registered.
        name: EncoderName,
    },
    /// A registered encoder that draws numbers which cannot be drawn again.
    #[error(
        "encoder `{name}` gives different features for the same batch in the same step; draw dropout by `Blueprint::dropout`, \
         which depends on the step alone, and not by candle's, which draws from the thread's generator"
    )]
    NotRepeatable {
        /// By which it is registered.
        name: EncoderName,
    },
    /// The backward pass of a registered encoder did not reach a parameter.
    #[error(
        "parameter `{name}` got no gradient: the network does not use it, or an operator has no backward pass. Of candle-nn these \
         have none: `LayerNorm` and `RmsNorm` on contiguous input, `ops::softmax_last_dim`, rotary embeddings; use \
         `ops::layer_norm_slow`, `ops::softmax`, `GroupNorm`. If it is not to be trained, `freeze` it in the job"
    )]
    CutGradient {
        /// The parameter.
        name: String,
    },
    /// A gradient with NaN or infinity in it.
    #[error("the gradient of parameter `{name}` is not finite; a smaller learning rate or clipping may help")]
    NotFinite {
        /// The parameter.
        name: String,
    },
    /// A saved encoder or optimizer does not fit this one.
    #[error("saved tensor `{name}`: {problem}; the checkpoint is of another encoder or optimizer")]
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
    /// Whether another try may succeed: only of a device that failed.
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
