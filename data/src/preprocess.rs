//! From a stored value to the input of an encoder. The details are resolved once, from the training split, and stored
//! in checkpoints.

use antiphon_core::spec::{InputSpec, ModalitySpec, TokenizerSpec};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::audio::{Listener, is_audio};
use super::batch::{Decoded, InputShape};
use super::dataset::{Dataset, ValueKind};
use super::error::{DataError, SampleError};
use super::image::{self, ImageSize, beginning, is_image};
use super::row::{Frame, RawValue};
use super::source;
use super::standardise::{Moments, Standardisation};
use super::stores::Stores;
use super::text::TextTokenizer;

/// The number of recordings, evenly spaced over the training split, that determine a spectrogram's mean and deviation.
const RECORDINGS: usize = 2048;
/// The largest `tokenizer.json`, in bytes.
const TOKENIZER_BYTES: u64 = 256 << 20;

/// The preprocessing of one modality. Pure: the same value gives the same numbers, on any thread.
#[derive(Debug)]
pub struct Preprocessor {
    column: String,
    input: InputSpec,
    shape: InputShape,
    decoder: Decoder,
    standardisation: Option<Standardisation>,
}

/// The state of a [`Preprocessor`] in a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessorState {
    /// Column, resolved input and shape.
    pub settings: PreprocessorSettings,
    /// The mean of each feature or mel band. Empty without standardisation.
    pub mean: Vec<f32>,
    /// The standard deviation of each feature or mel band, as long as `mean`. Never 0.
    pub deviation: Vec<f32>,
    /// The bytes of the `tokenizer.json`, if one is used.
    pub tokenizer: Option<Bytes>,
}

/// The settings in a [`PreprocessorState`], which are written as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreprocessorSettings {
    /// The column that the training split was read from.
    pub column: String,
    /// The resolved input: never `auto`, and with image sizes.
    pub input: InputSpec,
    /// The shape of every decoded sample.
    pub shape: InputShape,
}

#[derive(Debug)]
enum Decoder {
    Features,
    /// The size of a frame, and the number of frames.
    Image(ImageSize, u32),
    Audio(Listener),
    Text(TextTokenizer, usize),
}

impl Preprocessor {
    /// Resolves a modality's input from its training split: the meaning of `auto`, the size of images, mean and
    /// deviation.
    ///
    /// # Errors
    /// If the first sample cannot be decoded or is of another kind than in the job, if a sample that the statistics
    /// need cannot be decoded, or if the tokenizer cannot be read.
    pub async fn fit(modality: &ModalitySpec, train: &Dataset) -> Result<Self, DataError> {
        let column = train.column().to_owned();
        let input = resolve(&modality.input, train)?;
        let tokenizer = match &input {
            InputSpec::Text { tokenizer: TokenizerSpec::File(file), .. } => {
                Some(tokenizer(file, train.stores()).await?)
            }
            _ => None,
        };
        let width = if let Some(ValueKind::Features(width)) = train.kind() { width } else { 0 };
        let (decoder, shape) = build(&input, tokenizer, width).map_err(|reason| tokenizer_error(&input, reason))?;
        let mut fitted = Self { column, input, shape, decoder, standardisation: None };
        fitted.standardisation = fitted.statistics(train)?;
        Ok(fitted)
    }

    /// The preprocessing that a checkpoint stores.
    ///
    /// # Errors
    /// If the parts of the state contradict each other.
    pub fn from_state(state: PreprocessorState) -> Result<Self, DataError> {
        let PreprocessorSettings { column, input, shape } = state.settings;
        let failed = |reason: String| DataError::State { column: column.clone(), reason };
        let width = if let InputShape::Features { width } = shape { width } else { 0 };
        let (decoder, built) = build(&input, state.tokenizer, width).map_err(failed)?;
        if built != shape {
            return Err(failed(format!(
                "its shape is {shape:?}, but its settings make {built:?}; take another checkpoint"
            )));
        }
        let positions = positions(&input, &shape);
        if state.mean.len() != positions || state.deviation.len() != positions {
            let (mean, deviation) = (state.mean.len(), state.deviation.len());
            return Err(failed(format!(
                "it has {mean} means and {deviation} deviations for {positions} positions; take another checkpoint"
            )));
        }
        if state.mean.iter().any(|x| !x.is_finite()) || state.deviation.iter().any(|x| !x.is_finite() || *x <= 0.0) {
            return Err(failed(
                "a mean or deviation is not a finite number, or not above 0; take another checkpoint".to_owned(),
            ));
        }
        let standardisation =
            (positions > 0).then_some(Standardisation { mean: state.mean, deviation: state.deviation });
        Ok(Self { column, input, shape, decoder, standardisation })
    }

    /// The state for a checkpoint. [`Preprocessor::from_state`] restores the same preprocessing to the last bit.
    #[must_use]
    pub fn state(&self) -> PreprocessorState {
        let standard = self.standardisation.as_ref();
        PreprocessorState {
            settings: PreprocessorSettings {
                column: self.column.clone(),
                input: self.input.clone(),
                shape: self.shape.clone(),
            },
            mean: standard.map_or_else(Vec::new, |standard| standard.mean.clone()),
            deviation: standard.map_or_else(Vec::new, |standard| standard.deviation.clone()),
            tokenizer: match &self.decoder {
                Decoder::Text(TextTokenizer::File(_, file), _) => Some(file.clone()),
                _ => None,
            },
        }
    }

    /// The shape of every decoded sample.
    #[must_use]
    pub fn shape(&self) -> &InputShape {
        &self.shape
    }

    /// The resolved input, never `auto`.
    #[must_use]
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// One value as numbers.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn decode(&self, value: &RawValue) -> Result<Decoded, SampleError> {
        match (&self.decoder, value) {
            (Decoder::Features, RawValue::Features(numbers)) => self.features(numbers).map(Decoded::Dense),
            (Decoder::Image(size, 1), RawValue::Bytes(bytes)) => image::decode(bytes, *size).map(Decoded::Dense),
            (Decoder::Image(size, frames), RawValue::Clip(clip)) => {
                decoded_clip(clip, *size, *frames).map(Decoded::Dense)
            }
            (Decoder::Audio(listener), RawValue::Bytes(bytes)) => self.spectrogram(listener, bytes).map(Decoded::Dense),
            (Decoder::Text(tokenizer, max_tokens), RawValue::Text(text)) => {
                tokenizer.tokenize(text, *max_tokens).map(Decoded::Tokens)
            }
            (_, value) => {
                let what = format!("{} cannot be used as {}", value.what(), kind(&self.input));
                Err(SampleError::new(what, "correct `data.column` or `input`"))
            }
        }
    }

    fn features(&self, numbers: &[f32]) -> Result<Vec<f32>, SampleError> {
        let width = self.shape.size();
        if numbers.len() != width {
            let what = format!("the number of features is {}, but {width} in the training split", numbers.len());
            return Err(SampleError::new(what, "give every sample the same number of features, in the same order"));
        }
        if let Some(at) = numbers.iter().position(|number| !number.is_finite()) {
            let what = format!("the feature at position {at} is {}, not a finite number", numbers[at]);
            return Err(SampleError::new(what, "replace it by a number, or make the whole value null"));
        }
        let Some(standard) = &self.standardisation else {
            return Ok(numbers.to_vec());
        };
        Ok(numbers.iter().enumerate().map(|(i, x)| standard.apply(i, *x)).collect())
    }

    fn spectrogram(&self, listener: &Listener, bytes: &[u8]) -> Result<Vec<f32>, SampleError> {
        let mut heard = listener.hear(bytes)?;
        let Some(standard) = &self.standardisation else {
            return Ok(heard.values);
        };
        for (band, row) in heard.values.chunks_exact_mut(listener.frames()).enumerate() {
            let (recording, silence) = row.split_at_mut(heard.heard);
            recording.iter_mut().for_each(|x| *x = standard.apply(band, *x));
            silence.fill(0.0);
        }
        Ok(heard.values)
    }

    /// Mean and deviation of the training split, if the input is standardised.
    fn statistics(&self, train: &Dataset) -> Result<Option<Standardisation>, DataError> {
        let positions = positions(&self.input, &self.shape);
        if positions == 0 {
            return Ok(None);
        }
        let mut moments = Moments::new(positions);
        let samples = train.len() as u64;
        let used = if let Decoder::Audio(_) = self.decoder { samples.min(RECORDINGS as u64) } else { samples };
        for i in (0..used).map(|i| (i * samples / used) as u32) {
            let value = train.value(i)?;
            match (&self.decoder, &value) {
                (Decoder::Audio(listener), RawValue::Bytes(bytes)) => {
                    let heard = listener.hear(bytes).map_err(|error| train.sample_error(i, error))?;
                    let rows: Vec<&[f32]> = heard.values.chunks_exact(listener.frames()).collect();
                    (0..heard.heard).for_each(|frame| moments.push(rows.iter().map(|row| row[frame])));
                }
                (_, RawValue::Features(numbers)) => moments.push(numbers.iter().copied()),
                _ => {}
            }
        }
        Ok(Some(moments.finish()))
    }
}

/// The number of features or mel bands that have a mean and a deviation. 0 without standardisation.
fn positions(input: &InputSpec, shape: &InputShape) -> usize {
    match (input, shape) {
        (InputSpec::Features { standardise: true }, InputShape::Features { width }) => *width,
        (InputSpec::Audio { .. }, InputShape::Grid { height, .. }) => *height,
        _ => 0,
    }
}

fn build(input: &InputSpec, tokenizer: Option<Bytes>, width: usize) -> Result<(Decoder, InputShape), String> {
    Ok(match input {
        InputSpec::Features { .. } => (Decoder::Features, InputShape::Features { width }),
        InputSpec::Image { height: Some(height), width: Some(width), channels, frames } => {
            let size = ImageSize { channels: *channels, height: *height, width: *width };
            let (channels, height, width) = (*channels as usize, *height as usize, *width as usize);
            let shape = match *frames as usize {
                0 => return Err("it takes no frames; take another checkpoint".to_owned()),
                1 => InputShape::Grid { channels, height, width },
                frames => InputShape::Clip { frames, channels, height, width },
            };
            (Decoder::Image(size, *frames), shape)
        }
        InputSpec::Audio { sample_rate, seconds, mels, window, hop } => {
            let listener = Listener::new(*sample_rate, *seconds, *mels, *window, *hop);
            let shape = InputShape::Grid { channels: 1, height: listener.mels(), width: listener.frames() };
            (Decoder::Audio(listener), shape)
        }
        InputSpec::Text { max_tokens, .. } => {
            let tokenizer = tokenizer.map_or(Ok(TextTokenizer::Byte), TextTokenizer::from_json)?;
            let max_tokens = *max_tokens as usize;
            let shape =
                InputShape::Tokens { vocabulary: tokenizer.vocabulary(), max_tokens, padding: tokenizer.padding() };
            (Decoder::Text(tokenizer, max_tokens), shape)
        }
        InputSpec::Auto | InputSpec::Image { .. } => {
            return Err("its input is not resolved; take another checkpoint".to_owned());
        }
    })
}

/// The input, resolved by the first sample of the training split where the job leaves it open.
fn resolve(input: &InputSpec, train: &Dataset) -> Result<InputSpec, DataError> {
    let first = if train.is_empty() { None } else { Some(train.value(0)?) };
    let resolved = match (input, &first) {
        (InputSpec::Auto, Some(value)) => automatic(value),
        (other, _) => Ok(other.clone()),
    };
    let resolved = resolved.map_err(|error| train.sample_error(0, error))?;
    match (resolved, first) {
        (InputSpec::Image { height, width, channels, frames }, Some(first)) if height.is_none() || width.is_none() => {
            let (first_height, first_width) = first_size(&first).map_err(|error| train.sample_error(0, error))?;
            let (height, width) = (height.or(first_height), width.or(first_width));
            Ok(InputSpec::Image { height, width, channels, frames })
        }
        (resolved, _) => Ok(resolved),
    }
}

/// Height and width of an image, or of the first frame taken from a clip. None for other values.
fn first_size(value: &RawValue) -> Result<(Option<u32>, Option<u32>), SampleError> {
    let size = match value {
        RawValue::Bytes(bytes) => Some(image::dimensions(bytes)?),
        RawValue::Clip(frames) => {
            let first = frames.first().map(|Frame { position, bytes }| {
                image::dimensions(bytes).map_err(|error| error.in_frame(*position as usize))
            });
            first.transpose()?
        }
        RawValue::Text(_) | RawValue::Features(_) => None,
    };
    Ok(size.unzip())
}

/// (frames, channels, height, width), row-major. A repeated frame is decoded once.
fn decoded_clip(clip: &[Frame], size: ImageSize, frames: u32) -> Result<Vec<f32>, SampleError> {
    if clip.len() != frames as usize {
        let what = format!("{} frames were taken of the clip, but {frames} are wanted", clip.len());
        return Err(SampleError::new(what, "correct `input: {frames: …}`"));
    }
    let numbers = [frames, size.channels, size.height, size.width].map(|n| n as usize).into_iter().product();
    let mut values: Vec<f32> = Vec::with_capacity(numbers);
    let mut last: Option<(u32, usize)> = None;
    for Frame { position, bytes } in clip {
        let start = values.len();
        match last {
            Some((same, before)) if same == *position => values.extend_from_within(before..start),
            _ => values.extend(image::decode(bytes, size).map_err(|error| error.in_frame(*position as usize))?),
        }
        last = Some((*position, start));
    }
    Ok(values)
}

/// The defaults of each kind, as the job specification documents them.
fn automatic(value: &RawValue) -> Result<InputSpec, SampleError> {
    match value {
        RawValue::Features(_) => Ok(InputSpec::Features { standardise: true }),
        RawValue::Text(_) => Ok(InputSpec::Text { tokenizer: TokenizerSpec::Byte, max_tokens: 128 }),
        RawValue::Bytes(bytes) if is_image(bytes) => Ok(images()),
        RawValue::Clip(frames) => match frames.iter().find(|frame| !is_image(&frame.bytes)) {
            None => Ok(images()),
            Some(Frame { position, bytes }) => {
                let what = format!("not a supported image file (it begins with {})", beginning(bytes));
                Err(SampleError::new(what, "store it as PNG or JPEG").in_frame(*position as usize))
            }
        },
        RawValue::Bytes(bytes) if is_audio(bytes) => {
            Ok(InputSpec::Audio { sample_rate: 16_000, seconds: 1.0, mels: 64, window: 512, hop: 256 })
        }
        RawValue::Bytes(bytes) => {
            let what =
                format!("neither a supported image nor a supported audio file (it begins with {})", beginning(bytes));
            Err(SampleError::new(what, "store it as PNG, JPEG, WAV, FLAC or MP3"))
        }
    }
}

fn images() -> InputSpec {
    InputSpec::Image { height: None, width: None, channels: 3, frames: 1 }
}

fn kind(input: &InputSpec) -> &'static str {
    match input {
        InputSpec::Auto => "input",
        InputSpec::Image { frames: 1, .. } => "an image",
        InputSpec::Image { .. } => "a clip of several frames",
        InputSpec::Audio { .. } => "audio",
        InputSpec::Text { .. } => "text",
        InputSpec::Features { .. } => "features",
    }
}

async fn tokenizer(file: &str, stores: &Stores) -> Result<Bytes, DataError> {
    source::read_small(file, TOKENIZER_BYTES, stores)
        .await
        .map_err(|error| DataError::Tokenizer { file: file.to_owned(), reason: error.to_string() })
}

fn tokenizer_error(input: &InputSpec, reason: String) -> DataError {
    let file = match input {
        InputSpec::Text { tokenizer: TokenizerSpec::File(file), .. } => file.clone(),
        _ => String::new(),
    };
    DataError::Tokenizer { file, reason }
}
