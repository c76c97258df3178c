//! The input of an encoder: one decoded sample, and samples stacked into a batch.

use serde::{Deserialize, Serialize};

/// The shape of every decoded sample of a modality.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum InputShape {
    /// A vector.
    Features {
        /// Numbers per sample.
        width: usize,
    },
    /// An image, or a spectrogram with mel bands as rows and frames as columns.
    Grid {
        /// 1 or 3.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Images of one size, more than one: the frames of a clip.
    Clip {
        /// At least 2.
        frames: usize,
        /// 1 or 3.
        channels: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Token ids.
    Tokens {
        /// The number of token ids, including the padding token. All ids are below it.
        vocabulary: usize,
        /// The largest number of tokens in a sample. The smallest is 1.
        max_tokens: usize,
        /// The id that pads samples which are shorter than the longest of their batch.
        padding: u32,
    },
}

/// The images, or spectrograms, of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    /// The number of images: 1 for a grid.
    pub frames: usize,
    /// 1 or 3.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl InputShape {
    /// The images of a grid or clip. None for other shapes.
    #[must_use]
    pub fn images(&self) -> Option<Images> {
        match *self {
            Self::Grid { channels, height, width } => Some(Images { frames: 1, channels, height, width }),
            Self::Clip { frames, channels, height, width } => Some(Images { frames, channels, height, width }),
            Self::Features { .. } | Self::Tokens { .. } => None,
        }
    }

    /// The number of frames of a clip; 1 for other shapes.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.images().map_or(1, |images| images.frames)
    }

    /// Numbers per sample. For tokens, the largest number of tokens.
    #[must_use]
    pub fn size(&self) -> usize {
        match *self {
            Self::Features { width } => width,
            Self::Grid { channels, height, width } => channels * height * width,
            Self::Clip { frames, channels, height, width } => frames * channels * height * width,
            Self::Tokens { max_tokens, .. } => max_tokens,
        }
    }
}

/// One decoded sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// The numbers in row-major order, in the shape of its [`InputShape`].
    Dense(Vec<f32>),
    /// The token ids, 1 to `max_tokens`.
    Tokens(Vec<u32>),
}

/// Samples of one step, or of one chunk of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The number of the batch, from 0: the step in training, the chunk in evaluation.
    pub number: u64,
    /// The number of complete passes through the modality's data before this batch. 0 in evaluation.
    pub epoch: u64,
    /// The ids of the samples, B of them.
    pub ids: Vec<String>,
    /// The classes of the samples, B of them.
    pub labels: Vec<u32>,
    /// The inputs of the samples.
    pub input: BatchInput,
}

/// The inputs of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchInput {
    /// Features, grids or clips.
    Dense {
        /// (B, width) for features, (B, channels, height, width) for grids, (B, frames, channels, height, width) for
        /// clips.
        shape: Vec<usize>,
        /// The numbers in row-major order.
        data: Vec<f32>,
    },
    /// Token ids.
    Tokens {
        /// (B, longest) in row-major order, padded with the padding token.
        ids: Vec<u32>,
        /// The length of each sample in tokens, 1 to `longest`.
        lengths: Vec<u32>,
        /// The number of tokens in the longest sample of the batch.
        longest: usize,
    },
}

impl BatchInput {
    /// B.
    #[must_use]
    pub fn samples(&self) -> usize {
        match self {
            Self::Dense { shape, .. } => shape[0],
            Self::Tokens { lengths, .. } => lengths.len(),
        }
    }

    /// Stacks samples of this shape into a batch.
    #[must_use]
    pub fn stack(shape: &InputShape, samples: Vec<Decoded>) -> Self {
        match *shape {
            InputShape::Features { width } => Self::dense(vec![samples.len(), width], samples),
            InputShape::Grid { channels, height, width } => {
                Self::dense(vec![samples.len(), channels, height, width], samples)
            }
            InputShape::Clip { frames, channels, height, width } => {
                Self::dense(vec![samples.len(), frames, channels, height, width], samples)
            }
            InputShape::Tokens { padding, .. } => Self::tokens(padding, samples),
        }
    }

    fn dense(shape: Vec<usize>, samples: Vec<Decoded>) -> Self {
        let mut data = Vec::with_capacity(shape.iter().product());
        for sample in samples {
            if let Decoded::Dense(numbers) = sample {
                data.extend_from_slice(&numbers);
            }
        }
        debug_assert_eq!(data.len(), shape.iter().product::<usize>(), "a sample has another shape than its modality");
        Self::Dense { shape, data }
    }

    fn tokens(padding: u32, samples: Vec<Decoded>) -> Self {
        let rows: Vec<Vec<u32>> = samples
            .into_iter()
            .filter_map(|sample| match sample {
                Decoded::Tokens(tokens) => Some(tokens),
                Decoded::Dense(_) => None,
            })
            .collect();
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * longest);
        for row in &rows {
            ids.extend_from_slice(row);
            ids.resize(ids.len() + longest - row.len(), padding);
        }
        let lengths = rows.iter().map(|row| row.len() as u32).collect();
        Self::Tokens { ids, lengths, longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_holds_its_samples_in_order() {
        let shape = InputShape::Grid { channels: 1, height: 1, width: 2 };
        let stacked = BatchInput::stack(&shape, vec![Decoded::Dense(vec![1.0, 2.0]), Decoded::Dense(vec![3.0, 4.0])]);
        assert_eq!(stacked, BatchInput::Dense { shape: vec![2, 1, 1, 2], data: vec![1.0, 2.0, 3.0, 4.0] });
        assert_eq!(stacked.samples(), 2);
    }

    #[test]
    fn shorter_texts_are_filled_to_the_longest_of_the_batch() {
        let shape = InputShape::Tokens { vocabulary: 257, max_tokens: 9, padding: 256 };
        let stacked = BatchInput::stack(&shape, vec![Decoded::Tokens(vec![7]), Decoded::Tokens(vec![1, 2, 3])]);
        let expected = BatchInput::Tokens { ids: vec![7, 256, 256, 1, 2, 3], lengths: vec![1, 3], longest: 3 };
        assert_eq!(stacked, expected);
    }
}
