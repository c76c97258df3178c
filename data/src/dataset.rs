//! One split of one modality: the samples that have the modality, by index.
//!
//! The index is in memory. Per sample it has the bytes of the id, 8 bytes for the end of the id, 4 for the label, 16
//! for the position of the value and 4 for the order of ids: 32 bytes and the id. While a split is opened, another 40
//! bytes or so per row detect duplicate ids. Values are in memory up to a bound, and otherwise in a temporary file (see
//! [`super::payload`]).

use std::path::PathBuf;

use antiphon_core::ids::Split;

use super::clip;
use super::error::{DataError, SampleError, SampleOrigin};
use super::payload::{Payload, Span};
use super::row::RawValue;
use super::stores::Stores;

/// How a split is read and stored.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The stores that its files are read from.
    pub stores: Stores,
    /// The largest number of bytes of values in memory. A larger split is stored in a temporary file.
    pub memory: u64,
    /// The folder of that file. The file has no name, so it disappears with the process.
    pub folder: PathBuf,
}

impl OpenOptions {
    /// 256 MiB in memory, and the system's folder for temporary files (`TMPDIR`).
    #[must_use]
    pub fn new(stores: Stores) -> Self {
        Self { stores, memory: 256 << 20, folder: std::env::temp_dir() }
    }
}

/// The kind of values of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Image or audio files.
    Files,
    /// Frames of clips.
    Clips,
    /// Strings.
    Text,
    /// Vectors of this many numbers.
    Features(usize),
}

impl ValueKind {
    pub(super) fn of(value: &RawValue) -> Self {
        match value {
            RawValue::Bytes(_) => Self::Files,
            RawValue::Clip(_) => Self::Clips,
            RawValue::Text(_) => Self::Text,
            RawValue::Features(numbers) => Self::Features(numbers.len()),
        }
    }
}

/// The samples of one split that have one modality.
#[derive(Debug)]
pub struct Dataset {
    pub(super) stores: Stores,
    pub(super) column: String,
    pub(super) split: Split,
    pub(super) kind: Option<ValueKind>,
    pub(super) rows: u64,
    pub(super) ids: Ids,
    pub(super) labels: Vec<u32>,
    pub(super) spans: Vec<Span>,
    pub(super) in_order: Vec<u32>,
    /// Files, and the index of the first sample of each.
    pub(super) files: Vec<(String, u32)>,
    pub(super) payload: Payload,
}

impl Dataset {
    /// The number of samples that have the modality.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether no sample has the modality.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The number of rows of the split, including those that lack the modality.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The column that holds the values.
    #[must_use]
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The split.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// The kind of the values. None if there are none.
    #[must_use]
    pub fn kind(&self) -> Option<ValueKind> {
        self.kind
    }

    /// The stores that its files were read from. Other files that the job names are read from them, too.
    pub(super) fn stores(&self) -> &Stores {
        &self.stores
    }

    /// Whether the values are in a temporary file.
    #[must_use]
    pub fn is_spooled(&self) -> bool {
        self.payload.is_spooled()
    }

    /// The class of sample `i`.
    #[must_use]
    pub fn label(&self, i: u32) -> u32 {
        self.labels[i as usize]
    }

    /// The id of sample `i`.
    #[must_use]
    pub fn id(&self, i: u32) -> &str {
        self.ids.at(i as usize)
    }

    /// All indices, by ascending bytes of the ids.
    #[must_use]
    pub fn ids_in_order(&self) -> &[u32] {
        &self.in_order
    }

    /// The value of sample `i`. Several threads may call it at the same time.
    ///
    /// # Errors
    /// If the temporary file cannot be read.
    pub fn value(&self, i: u32) -> Result<RawValue, DataError> {
        let bytes = self.payload.read(self.spans[i as usize])?;
        Ok(match self.kind {
            Some(ValueKind::Text) => RawValue::Text(String::from_utf8_lossy(&bytes).into_owned()),
            Some(ValueKind::Features(_)) => RawValue::Features(numbers(&bytes)),
            Some(ValueKind::Clips) => RawValue::Clip(clip::unpack(&bytes)),
            Some(ValueKind::Files) | None => RawValue::Bytes(bytes),
        })
    }

    /// Names sample `i` for a message.
    #[must_use]
    pub fn place(&self, i: u32) -> SampleOrigin {
        let file = self.files.partition_point(|(_, first)| *first <= i).saturating_sub(1);
        let file = self.files.get(file).map_or(String::new(), |(name, _)| name.clone());
        SampleOrigin { file, row: None, id: Some(self.id(i).to_owned()) }
    }

    /// Adds the origin of sample `i` to an error of it.
    #[must_use]
    pub fn sample_error(&self, i: u32, error: SampleError) -> DataError {
        DataError::Sample { place: Box::new(self.place(i)), column: self.column.clone(), error }
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Ids, stored one after another in one buffer.
#[derive(Debug, Default)]
pub(super) struct Ids {
    text: String,
    ends: Vec<u64>,
}

impl Ids {
    pub(super) fn push(&mut self, id: &str) {
        self.text.push_str(id);
        self.ends.push(self.text.len() as u64);
    }

    pub(super) fn at(&self, i: usize) -> &str {
        let from = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[from as usize..self.ends[i] as usize]
    }
}
