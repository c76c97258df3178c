//! Gathers the rows of a split and builds a [`Dataset`] from them.

use std::collections::HashMap;

use antiphon_core::ids::Split;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::clip;
use super::dataset::{Dataset, Ids, OpenOptions, ValueKind};
use super::error::{DataError, SampleError, SampleOrigin};
use super::payload::{PayloadWriter, Span};
use super::row::{RawRow, RawValue};
use super::stores::Stores;

/// Gathers the rows of a split, and checks rules across rows.
pub(super) struct Gatherer {
    pub(super) stores: Stores,
    column: String,
    split: Split,
    kind: Option<ValueKind>,
    rows: u64,
    ids: Ids,
    labels: Vec<u32>,
    spans: Vec<Span>,
    files: Vec<(String, u32)>,
    payload: PayloadWriter,
    /// From 128 bits of the hash of each id to its file and row.
    seen: HashMap<u128, (u32, u64)>,
}

impl Gatherer {
    pub(super) fn new(column: &str, split: Split, options: &OpenOptions) -> Self {
        Self {
            stores: Stores::clone(&options.stores),
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

    /// Starts a file: the rows that follow are from it.
    pub(super) fn begin_file(&mut self, name: &str) {
        self.files.push((name.to_owned(), self.labels.len() as u32));
    }

    /// Adds row `row` of the current file.
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

    /// An error in a row of the current file.
    pub(super) fn sample_error(&self, row: u64, id: &str, error: SampleError) -> DataError {
        let place = SampleOrigin { id: Some(id.to_owned()), ..self.row_place(self.files.len() as u32 - 1, row) };
        DataError::Sample { place: Box::new(place), column: self.column.clone(), error }
    }

    fn row_place(&self, file: u32, row: u64) -> SampleOrigin {
        SampleOrigin { file: self.files[file as usize].0.clone(), row: Some(row), id: None }
    }

    fn check_id(&mut self, row: u64, id: &str) -> Result<(), DataError> {
        let mut key = [0; 16];
        key.copy_from_slice(&Sha256::digest(id.as_bytes())[..16]);
        let here = (self.files.len() as u32 - 1, row);
        match self.seen.insert(u128::from_le_bytes(key), here) {
            None => Ok(()),
            Some(first) => Err(DataError::DuplicateId {
                split: self.split,
                place: Box::new(SampleOrigin { id: Some(id.to_owned()), ..self.row_place(here.0, row) }),
                first: Box::new(self.row_place(first.0, first.1)),
            }),
        }
    }

    fn check_kind(&mut self, value: &RawValue) -> Result<(), SampleError> {
        let kind = ValueKind::of(value);
        match *self.kind.get_or_insert(kind) {
            first if first == kind => Ok(()),
            ValueKind::Features(width) => Err(SampleError::new(
                format!("the number of features is {}, but earlier samples have {width}", value_width(value)),
                "give every sample the same number of features, in the same order",
            )),
            _ => Err(SampleError::new(
                format!("{}, unlike in earlier samples", value.what()),
                "use one type in all files",
            )),
        }
    }

    /// The split, after the last row.
    pub(super) fn finish(self) -> Result<Dataset, DataError> {
        let ids = self.ids;
        let mut in_order: Vec<u32> = (0..self.labels.len() as u32).collect();
        in_order.sort_unstable_by(|a, b| ids.at(*a as usize).as_bytes().cmp(ids.at(*b as usize).as_bytes()));
        Ok(Dataset {
            stores: self.stores,
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
