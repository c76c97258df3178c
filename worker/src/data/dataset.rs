//! One split of one modality: the samples that have the modality, by index.
//!
//! The index is in memory: per sample its id's bytes, 8 bytes for where the id ends, 4 for the label, 16 for where its value is
//! and 4 for its place in id order, so 32 bytes and the id. While a split is opened another 40 bytes or so per row guard against
//! duplicate ids. Values are in memory up to a bound and beyond it in a temporary file (see [`super::payload`]).

use std::collections::HashMap;
use std::path::PathBuf;

use antiphon_core::ids::Split;
use antiphon_core::spec::{LabelSpec, ModalitySpec};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::clip;
use super::error::{DataError, Place, SampleError};
use super::label::Labels;
use super::open;
use super::payload::{Payload, PayloadWriter, Span};
use super::row::{RawRow, RawValue};

/// How a split is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenOptions {
    /// Bytes of values held in memory; a split with more is held in a temporary file.
    pub memory: u64,
    /// Where that file is made. It has no name: it is gone when the process is.
    pub folder: PathBuf,
}

impl Default for OpenOptions {
    /// 256 MiB; the system's folder for temporary files (`TMPDIR`).
    fn default() -> Self {
        Self { memory: 256 << 20, folder: std::env::temp_dir() }
    }
}

/// What the values of a split are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// Image or audio files.
    Files,
    /// Frames of clips.
    Clips,
    /// Strings.
    Text,
    /// Vectors of so many numbers.
    Features(usize),
}

impl ValueKind {
    fn of(value: &RawValue) -> Self {
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
    column: String,
    split: Split,
    kind: Option<ValueKind>,
    rows: u64,
    ids: Ids,
    labels: Vec<u32>,
    spans: Vec<Span>,
    in_order: Vec<u32>,
    /// Files, and the index of the first sample of each.
    files: Vec<(String, u32)>,
    payload: Payload,
}

impl Dataset {
    /// Reads a split: its index into memory, its values into memory or the temporary file.
    ///
    /// # Errors
    /// Whatever [`DataError`] names, at the first row that is wrong. An empty split, and a training split without samples that
    /// have the modality, are errors; check [`Dataset::is_declared`] before asking for a split that a job need not have.
    pub async fn open(
        modality: &ModalitySpec,
        labels: &LabelSpec,
        split: Split,
        seed: u64,
        options: &OpenOptions,
    ) -> Result<Self, DataError> {
        open::open(modality, Labels::Required(labels), split, seed, options).await
    }

    /// As [`Dataset::open`], for samples whose class is asked for rather than known: with labels where they are there
    /// (the column may be missing, and rows may have null or -1 in it), or without reading any for None.
    /// [`Dataset::label`] is [`UNLABELLED`](super::UNLABELLED) where there is none.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub async fn open_to_predict(
        modality: &ModalitySpec,
        labels: Option<&LabelSpec>,
        split: Split,
        seed: u64,
        options: &OpenOptions,
    ) -> Result<Self, DataError> {
        let labels = labels.map_or(Labels::Ignored, Labels::Optional);
        open::open(modality, labels, split, seed, options).await
    }

    /// Whether the job has such a split: validation and test need not be given.
    #[must_use]
    pub fn is_declared(modality: &ModalitySpec, split: Split) -> bool {
        open::is_declared(&modality.data, split)
    }

    /// Samples that have the modality.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether no sample has the modality.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Rows of the split, those that lack the modality among them.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The column that the values are from.
    #[must_use]
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The split.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// What the values are; None if there are none.
    #[must_use]
    pub fn kind(&self) -> Option<ValueKind> {
        self.kind
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

    /// The value of sample `i`. May be called from many threads at once.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
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
    pub fn place(&self, i: u32) -> Place {
        let file = self.files.partition_point(|(_, first)| *first <= i).saturating_sub(1);
        let file = self.files.get(file).map_or(String::new(), |(name, _)| name.clone());
        Place { file, row: None, id: Some(self.id(i).to_owned()) }
    }

    /// Adds the place to what is wrong with sample `i`.
    #[must_use]
    pub fn sample_error(&self, i: u32, error: SampleError) -> DataError {
        DataError::Sample { place: Box::new(self.place(i)), column: self.column.clone(), error }
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Ids one after another.
#[derive(Debug, Default)]
struct Ids {
    text: String,
    ends: Vec<u64>,
}

impl Ids {
    fn push(&mut self, id: &str) {
        self.text.push_str(id);
        self.ends.push(self.text.len() as u64);
    }

    fn at(&self, i: usize) -> &str {
        let from = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[from as usize..self.ends[i] as usize]
    }
}

/// Gathers the rows of a split, and checks what concerns more than one row.
pub(super) struct Gatherer {
    column: String,
    split: Split,
    kind: Option<ValueKind>,
    rows: u64,
    ids: Ids,
    labels: Vec<u32>,
    spans: Vec<Span>,
    files: Vec<(String, u32)>,
    payload: PayloadWriter,
    /// 128 bits of the hash of each id, to the file and row it was in.
    seen: HashMap<u128, (u32, u64)>,
}

impl Gatherer {
    pub(super) fn new(column: &str, split: Split, options: &OpenOptions) -> Self {
        Self {
            column: column.to_owned(),
            split,
            kind: None,
            rows: 0,
            ids: Ids::default(),
            labels: Vec::new(),
            spans: Vec::new(),
            files: Vec::new(),
            payload: PayloadWriter::new(options.memory, options.folder.clone()),
            seen: HashMap::new(),
        }
    }

    /// The rows that follow are from this file.
    pub(super) fn begin_file(&mut self, name: &str) {
        self.files.push((name.to_owned(), self.labels.len() as u32));
    }

    /// Takes row `row` of the file that was begun last.
    pub(super) fn push(&mut self, row: u64, sample: RawRow) -> Result<(), DataError> {
        self.check_id(row, &sample.id)?;
        self.rows += 1;
        let Some(value) = sample.value else { return Ok(()) };
        self.check_kind(&value).map_err(|error| self.sample_error(row, &sample.id, error))?;
        let bytes: Bytes = match value {
            RawValue::Bytes(bytes) => bytes,
            RawValue::Clip(frames) => clip::pack(&frames),
            RawValue::Text(text) => text.into(),
            RawValue::Features(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        };
        if u32::try_from(bytes.len()).is_err() || u32::try_from(self.labels.len() + 1).is_err() {
            let error = SampleError::new("a value over 4 GiB, or more than 4,294,967,295 samples", "split the data");
            return Err(self.sample_error(row, &sample.id, error));
        }
        self.spans.push(self.payload.push(&bytes)?);
        self.ids.push(&sample.id);
        self.labels.push(sample.label);
        Ok(())
    }

    /// An error of a row of the file that was begun last.
    pub(super) fn sample_error(&self, row: u64, id: &str, error: SampleError) -> DataError {
        let place = Place { id: Some(id.to_owned()), ..self.row_place(self.files.len() as u32 - 1, row) };
        DataError::Sample { place: Box::new(place), column: self.column.clone(), error }
    }

    fn row_place(&self, file: u32, row: u64) -> Place {
        Place { file: self.files[file as usize].0.clone(), row: Some(row), id: None }
    }

    fn check_id(&mut self, row: u64, id: &str) -> Result<(), DataError> {
        let mut key = [0; 16];
        key.copy_from_slice(&Sha256::digest(id.as_bytes())[..16]);
        let here = (self.files.len() as u32 - 1, row);
        match self.seen.insert(u128::from_le_bytes(key), here) {
            None => Ok(()),
            Some(first) => Err(DataError::DuplicateId {
                split: self.split,
                place: Box::new(Place { id: Some(id.to_owned()), ..self.row_place(here.0, row) }),
                first: Box::new(self.row_place(first.0, first.1)),
            }),
        }
    }

    fn check_kind(&mut self, value: &RawValue) -> Result<(), SampleError> {
        let kind = ValueKind::of(value);
        match *self.kind.get_or_insert(kind) {
            first if first == kind => Ok(()),
            ValueKind::Features(width) => Err(SampleError::new(
                format!("the number of features is {}, but {width} in the samples before", value_width(value)),
                "give every sample the same number of features, in the same order",
            )),
            _ => Err(SampleError::new(
                format!("{}, unlike the samples before", value.what()),
                "use one type in all files",
            )),
        }
    }

    /// No more rows.
    pub(super) fn finish(self) -> Result<Dataset, DataError> {
        let ids = self.ids;
        let mut in_order: Vec<u32> = (0..self.labels.len() as u32).collect();
        in_order.sort_unstable_by(|a, b| ids.at(*a as usize).as_bytes().cmp(ids.at(*b as usize).as_bytes()));
        Ok(Dataset {
            column: self.column,
            split: self.split,
            kind: self.kind,
            rows: self.rows,
            ids,
            labels: self.labels,
            spans: self.spans,
            in_order,
            files: self.files,
            payload: self.payload.finish()?,
        })
    }
}

fn value_width(value: &RawValue) -> usize {
    if let RawValue::Features(numbers) = value { numbers.len() } else { 0 }
}
