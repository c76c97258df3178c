//! Arrow columns to values: images and audio, text, features, ids.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, StructArray};
use arrow_schema::DataType;
use bytes::Bytes;

use super::clip;
use super::error::SampleError;

/// The kind of values in a column, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// Image or audio files: binary, or a struct of `bytes` and `path`.
    Files,
    /// Lists of files: the frames of clips.
    Clips,
    /// Strings.
    Text,
    /// Lists of numbers.
    Features,
}

impl ColumnKind {
    /// The kind of values in a column of this type, if it can hold a modality.
    #[must_use]
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Struct(fields) => {
                let bytes = fields.iter().find(|field| field.name() == "bytes")?;
                is_binary(bytes.data_type()).then_some(Self::Files)
            }
            DataType::Dictionary(_, values) => Self::of(values),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Text),
            DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
                if Self::of(item.data_type()) == Some(Self::Files) {
                    return Some(Self::Clips);
                }
                item.data_type().is_numeric().then_some(Self::Features).filter(|_| !is_decimal(item.data_type()))
            }
            other => is_binary(other).then_some(Self::Files),
        }
    }
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn is_decimal(data_type: &DataType) -> bool {
    data_type.is_decimal()
}

/// A cell of a modality's column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// Null: the sample lacks the modality.
    Absent,
    /// A string.
    Text(String),
    /// Numbers, all finite.
    Features(Vec<f32>),
    /// An image or a recording.
    File(File),
    /// The frames taken from a list of images, with their positions in the list.
    Clip(Vec<(u32, File)>),
}

/// A file, or its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum File {
    /// The bytes of the file.
    Bytes(Bytes),
    /// The name of a file beside the Parquet file.
    Beside(String),
}

/// One column of one batch. Dictionary-encoded values are resolved.
pub(super) struct Column {
    values: ArrayRef,
    keys: Option<Vec<Option<usize>>>,
}

impl Column {
    pub(super) fn new(array: &ArrayRef) -> Self {
        let Some(dictionary) = array.as_any_dictionary_opt() else {
            return Self { values: Arc::clone(array), keys: None };
        };
        let nulls = array.logical_nulls();
        let present = |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        let keys = if dictionary.values().is_empty() {
            // All rows are null, and arrow's `normalized_keys` would panic.
            vec![None; array.len()]
        } else {
            let keys = dictionary.normalized_keys().into_iter().enumerate();
            keys.map(|(row, key)| present(row).then_some(key)).collect()
        };
        Self { values: Arc::clone(dictionary.values()), keys: Some(keys) }
    }

    /// The values and the row in them; None for null.
    fn at(&self, row: usize) -> Option<(&ArrayRef, usize)> {
        let row = match &self.keys {
            None => row,
            Some(keys) => keys[row]?,
        };
        self.values.is_valid(row).then_some((&self.values, row))
    }

    fn len(&self) -> usize {
        self.keys.as_ref().map_or(self.values.len(), Vec::len)
    }

    /// Whether the value in a row is null.
    pub(super) fn is_null(&self, row: usize) -> bool {
        self.at(row).is_none()
    }

    /// The modality's value in a row. For a clip, `frames` of its frames.
    pub(super) fn cell(&self, row: usize, frames: u32) -> Result<Cell, SampleError> {
        let Some((array, row)) = self.at(row) else {
            return Ok(Cell::Absent);
        };
        if let Some(text) = text_at(array, row) {
            return Ok(Cell::Text(text.to_owned()));
        }
        if let Some(file) = file_at(array, row)? {
            return Ok(Cell::File(file));
        }
        match (list_at(array, row), ColumnKind::of(array.data_type())) {
            (Some(items), Some(ColumnKind::Clips)) => clip(&items, frames).map(Cell::Clip),
            (Some(items), _) => numbers(&items).map(Cell::Features),
            (None, _) => Err(SampleError::new(
                format!("a value of type {} cannot be read", array.data_type()),
                "convert the column",
            )),
        }
    }

    /// The number of items of the list in a row. 0 for null or another type.
    pub(super) fn list_length(&self, row: usize) -> usize {
        self.at(row).and_then(|(array, row)| list_at(array, row)).map_or(0, |items| items.len())
    }

    /// A string or an integer as text; None for null or another type.
    pub(super) fn text_or_integer(&self, row: usize) -> Option<String> {
        let (array, row) = self.at(row)?;
        text_at(array, row).map(str::to_owned).or_else(|| integer_at(array, row).map(|number| number.to_string()))
    }

    /// A string; None for null or another type.
    pub(super) fn text(&self, row: usize) -> Option<&str> {
        let (array, row) = self.at(row)?;
        text_at(array, row)
    }

    /// An integer; None for null or another type.
    pub(super) fn integer(&self, row: usize) -> Option<i128> {
        let (array, row) = self.at(row)?;
        integer_at(array, row)
    }
}

/// The frames taken from the items of a list. No item may be null, not even one that is not taken: gaps would shift the
/// frames that follow.
fn clip(items: &ArrayRef, frames: u32) -> Result<Vec<(u32, File)>, SampleError> {
    const REMEDY: &str = "or make the whole value null where the sample lacks this modality";
    let items = Column::new(items);
    let length = items.len();
    if length == 0 {
        return Err(SampleError::new("the clip has no frames", format!("give it at least one, {REMEDY}")));
    }
    if let Some(null) = (0..length).find(|item| items.is_null(*item)) {
        let error = SampleError::new("it is null", format!("give the image, leave it out of the list, {REMEDY}"));
        return Err(error.in_frame(null));
    }
    let frame = |position: usize| {
        let file = items.at(position).map_or(Ok(None), |(array, item)| file_at(array, item));
        let file = file.map_err(|error| error.in_frame(position))?;
        Ok(file.map(|file| (position as u32, file)))
    };
    let mut taken: Vec<(u32, File)> = Vec::new();
    for position in clip::taken(length, frames) {
        match taken.last() {
            // A repeated frame is stored once.
            Some((last, file)) if *last == position as u32 => taken.push((*last, file.clone())),
            _ => taken.extend(frame(position)?),
        }
    }
    Ok(taken)
}

/// Binary, or a struct of `bytes` and `path`; None for another type.
fn file_at(array: &ArrayRef, row: usize) -> Result<Option<File>, SampleError> {
    match array.as_struct_opt() {
        Some(file) => file_of(file, row).map(Some),
        None => Ok(bytes_at(array, row).map(|bytes| File::Bytes(Bytes::copy_from_slice(bytes)))),
    }
}

/// The bytes of a struct of `bytes` and `path`, or otherwise the file that the path names.
fn file_of(file: &StructArray, row: usize) -> Result<File, SampleError> {
    let field = |name| file.column_by_name(name).filter(|array| array.is_valid(row));
    if let Some(bytes) = field("bytes").and_then(|array| bytes_at(array, row)) {
        return Ok(File::Bytes(Bytes::copy_from_slice(bytes)));
    }
    match field("path").and_then(|array| text_at(array, row)) {
        Some(path) => Ok(File::Beside(path.to_owned())),
        None => Err(SampleError::new(
            "both `bytes` and `path` are null",
            "fill one of them, or make the whole value null where the sample lacks this modality",
        )),
    }
}

fn bytes_at(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    match array.data_type() {
        DataType::Binary => Some(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => Some(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => Some(array.as_fixed_size_binary().value(row)),
        _ => None,
    }
}

fn text_at(array: &ArrayRef, row: usize) -> Option<&str> {
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    }
}

fn integer_at(array: &ArrayRef, row: usize) -> Option<i128> {
    Some(match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        _ => return None,
    })
}

fn list_at(array: &ArrayRef, row: usize) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(row)),
        DataType::List(_) => Some(array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(row)),
        _ => None,
    }
}

/// A list as finite f32 numbers.
fn numbers(items: &ArrayRef) -> Result<Vec<f32>, SampleError> {
    if items.is_empty() {
        return Err(SampleError::new("the list is empty", "give every sample the same number of features, or null"));
    }
    (0..items.len()).map(|i| number(items, i)).collect()
}

fn number(items: &ArrayRef, i: usize) -> Result<f32, SampleError> {
    const REMEDY: &str = "replace it by a number, or make the whole value null where the sample lacks this modality";
    if items.is_null(i) {
        return Err(SampleError::new(format!("the feature at position {i} is null"), REMEDY));
    }
    let value = match items.data_type() {
        DataType::Float16 => items.as_primitive::<Float16Type>().value(i).to_f32(),
        DataType::Float32 => items.as_primitive::<Float32Type>().value(i),
        DataType::Float64 => items.as_primitive::<Float64Type>().value(i) as f32,
        _ => integer_at(items, i).map_or(f32::NAN, |value| value as f32),
    };
    if value.is_finite() {
        return Ok(value);
    }
    Err(SampleError::new(format!("the feature at position {i} is {value}, not a finite number"), REMEDY))
}

#[cfg(test)]
mod tests {
    use arrow_array::DictionaryArray;

    use super::*;

    #[test]
    fn a_dictionary_is_looked_up_and_one_without_values_is_all_null() {
        let read = |rows: &[Option<&str>]| {
            let array: ArrayRef = Arc::new(rows.iter().copied().collect::<DictionaryArray<Int32Type>>());
            let column = Column::new(&array);
            (0..rows.len()).map(|row| column.text(row).map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(read(&[None, None, None]), [None, None, None]);
        let words = [Some("b"), None, Some("a"), Some("b")];
        assert_eq!(read(&words), words.map(|word| word.map(str::to_owned)));
    }
}
