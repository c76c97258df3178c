//! Files of a checkpoint that hold tensors: named f32 tensors in a safetensors file, with a JSON note in its header.
//!
//! The same content always gives the same bytes, which the run's digest needs: tensors are in the order of their names,
//! and the header has one metadata key only, `antiphon`, because safetensors writes several keys in no fixed order.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensorError, SafeTensors};
use serde::Serialize;
use serde::de::DeserializeOwned;

const NOTE: &str = "antiphon";

/// A dense f32 tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The dimensions, outermost first. Their product is the number of elements.
    pub shape: Vec<usize>,
    /// The elements in row-major order.
    pub data: Vec<f32>,
}

/// Named tensors.
pub type Arrays = BTreeMap<String, Array>;

/// Why a file does not hold the expected tensors.
#[derive(Debug, thiserror::Error)]
pub enum TensorsError {
    /// The file is not a safetensors file, or is truncated.
    #[error("`{name}` is not a complete safetensors file: {reason}; use another checkpoint")]
    Format {
        /// The file.
        name: String,
        /// The reader's error.
        reason: String,
    },
    /// A tensor has another element type than f32.
    #[error("tensor `{tensor}` of `{name}` is {found}, not F32")]
    Type {
        /// The file.
        name: String,
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// The note is missing or has other fields.
    #[error("`{name}` was not written by this version of antiphon: {reason}; use the version that wrote it")]
    Note {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The bytes of a file.
///
/// # Errors
/// If the note cannot be serialised, or a tensor's shape does not match its data.
pub fn encode(name: &str, tensors: &Arrays, note: &impl Serialize) -> Result<Bytes, TensorsError> {
    let text = serde_json::to_string(note)
        .map_err(|error| TensorsError::Note { name: name.to_owned(), reason: error.to_string() })?;
    let header = HashMap::from([(NOTE.to_owned(), text)]);
    let bytes = safetensors::serialize(tensors.iter().map(|(name, array)| (name, Borrowed(array))), Some(header));
    bytes.map(Bytes::from).map_err(|error| format_error(name, &error))
}

/// The tensors and the note of a file.
///
/// # Errors
/// If the file is not complete, holds other types than f32, or has no such note.
pub fn decode<N: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<(Arrays, N), TensorsError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| format_error(name, &error))?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| format_error(name, &error))?;
    let text = header.metadata().as_ref().and_then(|entries| entries.get(NOTE));
    let no_note = |reason: String| TensorsError::Note { name: name.to_owned(), reason };
    let text = text.ok_or_else(|| no_note(format!("its header has no `{NOTE}` entry")))?;
    let note = serde_json::from_str(text).map_err(|error| no_note(error.to_string()))?;
    let mut tensors = Arrays::new();
    for (tensor, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            let found = format!("{:?}", view.dtype());
            return Err(TensorsError::Type { name: name.to_owned(), tensor: tensor.to_owned(), found });
        }
        let data = view.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        tensors.insert(tensor.to_owned(), Array { shape: view.shape().to_vec(), data });
    }
    Ok((tensors, note))
}

fn format_error(name: &str, error: &SafeTensorError) -> TensorsError {
    TensorsError::Format { name: name.to_owned(), reason: error.to_string() }
}

struct Borrowed<'a>(&'a Array);

impl View for Borrowed<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.data.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.0.data.len() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrays() -> Arrays {
        let array = |shape: &[usize]| Array {
            shape: shape.to_vec(),
            data: (0..shape.iter().product::<usize>()).map(|i| i as f32 - 1.5).collect(),
        };
        [("weight", &[2, 3][..]), ("bias", &[3]), ("scalar", &[]), ("empty", &[0, 4])]
            .map(|(name, shape)| (name.to_owned(), array(shape)))
            .into()
    }

    #[test]
    fn a_file_is_read_as_written_and_its_bytes_are_determined() {
        let note = vec!["a".to_owned(), "b".to_owned()];
        let bytes = encode("p", &arrays(), &note).expect("it encodes");
        let (tensors, read): (Arrays, Vec<String>) = decode("p", &bytes).expect("it decodes");
        assert_eq!((&tensors, &read), (&arrays(), &note));
        assert_eq!(encode("p", &tensors, &read).expect("it encodes"), bytes);
    }

    #[test]
    fn a_broken_file_is_rejected_by_name() {
        let bytes = encode("p", &arrays(), &7).expect("it encodes");
        for length in [0, 4, 9, bytes.len() / 2, bytes.len() - 1] {
            let error = decode::<u32>("p", &bytes[..length]).expect_err("it is truncated");
            assert!(matches!(error, TensorsError::Format { .. }), "{error}");
        }
        assert!(matches!(decode::<String>("p", &bytes), Err(TensorsError::Note { .. })));
    }

    #[test]
    fn a_shape_that_does_not_match_its_data_is_rejected() {
        let wrong = [("w".to_owned(), Array { shape: vec![2, 2], data: vec![0.0; 3] })].into();
        assert!(encode("p", &wrong, &0).is_err());
    }
}
