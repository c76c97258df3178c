//! Describes one row, value by value.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{ArrayRef, RecordBatch};
use serde::Serialize;

use super::super::audio::{is_audio, survey};
use super::super::column::{Cell, Column, File};
use super::super::error::SampleError;
use super::super::image::{self, ImageSize, beginning, is_image};
use super::super::shard::Shard;

/// The longer side of a picture, in pixels.
const PICTURE: u32 = 56;
/// The largest number of seconds that are decoded from a recording.
const SECONDS: f64 = 600.0;
/// The largest number of characters shown of a text.
const CHARACTERS: usize = 240;
/// The largest number of numbers shown of a vector.
const NUMBERS: usize = 6;

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SampleReport {
    /// The path or URL of its file.
    pub file: String,
    /// The number of the row in its file, from 0.
    pub row: u64,
    /// The values, one per column, in the order of the file.
    pub values: Vec<NamedValue>,
}

/// A value and its column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NamedValue {
    /// The column.
    pub column: String,
    /// The value in it.
    #[serde(flatten)]
    pub value: ValueReport,
}

/// A description of a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ValueReport {
    /// Null.
    Missing,
    /// A PNG or JPEG file.
    Image {
        /// `PNG` or `JPEG`.
        format: &'static str,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Size of the file.
        bytes: usize,
        /// The image itself, small.
        #[serde(skip)]
        picture: Picture,
    },
    /// A list of images.
    Clip {
        /// How many.
        frames: usize,
        /// `PNG` or `JPEG`. This field and the next ones describe the middle frame.
        format: &'static str,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Size of the file.
        bytes: usize,
        /// The image itself, small.
        #[serde(skip)]
        picture: Picture,
    },
    /// A WAV, FLAC or MP3 file.
    Audio {
        /// `WAV`, `FLAC` or `MP3`.
        format: &'static str,
        /// Hz.
        rate: u32,
        /// The length in seconds. At most 10 minutes are read.
        seconds: f64,
        /// Largest absolute sample; 1 is full scale.
        peak: f32,
        /// Size of the file.
        bytes: usize,
    },
    /// A string.
    Text {
        /// The first characters of the string.
        text: String,
        /// The number of characters of the whole string.
        characters: usize,
    },
    /// A list of numbers.
    Features {
        /// How many.
        length: usize,
        /// The first numbers.
        first: Vec<f32>,
    },
    /// A single number, or a value of a type that no modality can have.
    Plain {
        /// As text.
        value: String,
    },
    /// A value that training would refuse.
    Unreadable {
        /// What is wrong, and what to do.
        error: String,
    },
}

/// A small grey version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picture {
    /// Pixels, at most 56.
    pub width: usize,
    /// Pixels, at most 56.
    pub height: usize,
    /// The grey levels, row by row. 0 is black.
    pub levels: Vec<u8>,
}

/// Row `row` of a batch, which is row `number` of its file.
pub(super) async fn look(shard: &Shard, batch: &RecordBatch, row: usize, number: u64) -> SampleReport {
    let mut values = Vec::new();
    for (field, array) in shard.schema().fields().iter().zip(batch.columns()) {
        let value = look_at(shard, array, row).await;
        values.push(NamedValue { column: field.name().clone(), value });
    }
    SampleReport { file: shard.source().url().to_owned(), row: number, values }
}

async fn look_at(shard: &Shard, array: &ArrayRef, row: usize) -> ValueReport {
    let column = Column::new(array);
    if column.is_null(row) {
        return ValueReport::Missing;
    }
    if let Some(value) = plain(&column, array, row) {
        return ValueReport::Plain { value };
    }
    let unreadable = |error: String| ValueReport::Unreadable { error };
    match column.cell(row, 1) {
        Ok(Cell::Absent) => ValueReport::Missing,
        Ok(Cell::File(found)) => file_of(shard, &found).await.unwrap_or_else(unreadable),
        Ok(Cell::Clip(frames)) => clip_of(shard, column.list_length(row), &frames).await.unwrap_or_else(unreadable),
        Ok(Cell::Text(text)) => {
            ValueReport::Text { characters: text.chars().count(), text: text.chars().take(CHARACTERS).collect() }
        }
        Ok(Cell::Features(numbers)) => {
            ValueReport::Features { length: numbers.len(), first: numbers.into_iter().take(NUMBERS).collect() }
        }
        Err(error) => unreadable(error.to_string()),
    }
}

/// Describes a file, in the row or beside the Parquet file.
async fn file_of(shard: &Shard, found: &File) -> Result<ValueReport, String> {
    match found {
        File::Bytes(bytes) => file(bytes),
        File::Beside(name) => match shard.source().read_beside(name).await {
            Ok(bytes) => file(&bytes),
            Err(error) => return Err(format!("its `path` is `{name}`, which cannot be read: {error}")),
        },
    }
    .map_err(|error| error.to_string())
}

/// Describes the middle frame of a clip.
async fn clip_of(shard: &Shard, frames: usize, taken: &[(u32, File)]) -> Result<ValueReport, String> {
    let Some((position, found)) = taken.first() else { return Err("the clip has no frames".to_owned()) };
    match file_of(shard, found).await {
        Ok(ValueReport::Image { format, width, height, bytes, picture }) => {
            Ok(ValueReport::Clip { frames, format, width, height, bytes, picture })
        }
        Ok(_) => Err(format!("frame {position}: not an image; store it as PNG or JPEG")),
        Err(error) => Err(format!("frame {position}: {error}")),
    }
}

/// A number as text, or the type of an unsupported value.
fn plain(column: &Column, array: &ArrayRef, row: usize) -> Option<String> {
    if let Some(number) = column.integer(row) {
        return Some(number.to_string());
    }
    let single = array.as_primitive_opt::<Float32Type>().map(|array| array.value(row).to_string());
    let double = || array.as_primitive_opt::<Float64Type>().map(|array| array.value(row).to_string());
    let other = || {
        let kind = super::super::ColumnKind::of(array.data_type());
        kind.is_none().then(|| format!("a value of type {}", array.data_type()))
    };
    single.or_else(double).or_else(other)
}

/// What a file is.
fn file(bytes: &[u8]) -> Result<ValueReport, SampleError> {
    if is_audio(bytes) {
        let heard = survey(bytes, SECONDS)?;
        let (format, rate) = (heard.format, heard.rate);
        return Ok(ValueReport::Audio { format, rate, seconds: heard.seconds, peak: heard.peak, bytes: bytes.len() });
    }
    if !is_image(bytes) {
        let what =
            format!("neither a supported image nor a supported audio file (it begins with {})", beginning(bytes));
        return Err(SampleError::new(what, "store it as PNG, JPEG, WAV, FLAC or MP3"));
    }
    let format = if bytes.starts_with(b"\x89PNG") { "PNG" } else { "JPEG" };
    let (height, width) = image::dimensions(bytes)?;
    Ok(ValueReport::Image { format, width, height, bytes: bytes.len(), picture: picture(bytes, height, width)? })
}

fn picture(bytes: &[u8], height: u32, width: u32) -> Result<Picture, SampleError> {
    let longer = height.max(width).max(1);
    let side = |side: u32| if longer <= PICTURE { side } else { (side * PICTURE).div_ceil(longer) }.max(1);
    let size = ImageSize { channels: 1, height: side(height), width: side(width) };
    let levels = image::decode(bytes, size)?.into_iter().map(|x| ((x + 1.0) * 127.5).round() as u8).collect();
    Ok(Picture { width: size.width as usize, height: size.height as usize, levels })
}
