//! Counts over all rows of a table: missing values, classes and duplicate ids.

use std::collections::{BTreeMap, HashMap};

use arrow_array::RecordBatch;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::audio::is_audio;
use super::super::column::{Cell, Column, File};
use super::super::image::is_image;

/// The largest number of classes that are counted individually.
const CLASSES: usize = 10_000;
/// The largest number of duplicate ids that are named.
const NAMED: usize = 3;

/// The rows of each class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabelReport {
    /// The column.
    pub column: String,
    /// The classes: integers in order, then strings in order.
    pub classes: Vec<ClassReport>,
    /// The number of rows in classes beyond the first 10,000.
    pub others: u64,
    /// The number of rows whose label is null, or neither an integer nor a string.
    pub without: u64,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassReport {
    /// The label as it is in the rows.
    pub label: String,
    /// The name of this number in the file's metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number of rows with this label.
    pub rows: u64,
}

/// Whether ids are unique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdReport {
    /// The column.
    pub column: String,
    /// The number of rows whose id also occurs in an earlier row of the table.
    pub duplicates: u64,
    /// The number of these rows whose id occurs in an earlier row of the same file.
    pub within_files: u64,
    /// The first duplicates.
    pub examples: Vec<DuplicateReport>,
    /// The number of rows whose id is null, or neither an integer nor a string.
    pub without: u64,
}

/// An id that occurs twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DuplicateReport {
    /// The id.
    pub id: String,
    /// The file and row, from 0, of its first occurrence.
    pub first: (String, u64),
    /// The file and row of its second occurrence.
    pub again: (String, u64),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Number(i128),
    Text(String),
}

/// The counts so far.
pub(super) struct Tally {
    rows: u64,
    missing: Vec<u64>,
    media: Vec<Option<&'static str>>,
    labels: Option<(usize, LabelReport, BTreeMap<Class, u64>)>,
    ids: Option<Ids>,
}

struct Ids {
    position: usize,
    report: IdReport,
    files: Vec<String>,
    /// The file and row of the first occurrence of an id, by half of its SHA-256.
    seen: HashMap<[u8; 16], (usize, u64)>,
}

impl Tally {
    /// Counters for a table with these columns, with the positions of the label and id columns.
    pub(super) fn new(columns: &[&str], label: Option<usize>, id: Option<usize>) -> Self {
        let name = |position: usize| columns[position].to_owned();
        let labels = |position| LabelReport { column: name(position), classes: Vec::new(), others: 0, without: 0 };
        let ids = |position| Ids {
            position,
            report: IdReport {
                column: name(position),
                duplicates: 0,
                within_files: 0,
                examples: Vec::new(),
                without: 0,
            },
            files: Vec::new(),
            seen: HashMap::new(),
        };
        Self {
            rows: 0,
            missing: vec![0; columns.len()],
            media: vec![None; columns.len()],
            labels: label.map(|position| (position, labels(position), BTreeMap::new())),
            ids: id.map(ids),
        }
    }

    /// Counts a batch of a file. Its first row is row `first` of the file.
    pub(super) fn count(&mut self, file: &str, first: u64, batch: &RecordBatch) {
        self.rows += batch.num_rows() as u64;
        for (position, array) in batch.columns().iter().enumerate() {
            let column = Column::new(array);
            let present = (0..batch.num_rows()).filter(|row| !column.is_null(*row)).count();
            self.missing[position] += (batch.num_rows() - present) as u64;
            if self.media[position].is_none() {
                self.media[position] =
                    (0..batch.num_rows()).find(|row| !column.is_null(*row)).and_then(|row| media(&column, row));
            }
            if self.labels.as_ref().is_some_and(|(label, ..)| *label == position) {
                (0..batch.num_rows()).for_each(|row| self.count_label(&column, row));
            }
            if let Some(ids) = self.ids.as_mut().filter(|ids| ids.position == position) {
                ids.begin(file);
                (0..batch.num_rows()).for_each(|row| ids.count(&column, row, first + row as u64));
            }
        }
    }

    fn count_label(&mut self, column: &Column, row: usize) {
        let Some((_, report, counts)) = &mut self.labels else { return };
        let class =
            column.integer(row).map(Class::Number).or_else(|| column.text(row).map(|t| Class::Text(t.to_owned())));
        match class {
            None => report.without += 1,
            Some(class) if counts.len() < CLASSES || counts.contains_key(&class) => {
                *counts.entry(class).or_default() += 1
            }
            Some(_) => report.others += 1,
        }
    }

    /// All rows.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The number of rows without a value in a column.
    pub(super) fn missing(&self, position: usize) -> u64 {
        self.missing[position]
    }

    /// `Image` or `Audio`, by the first value of a column. For a list of files, by its middle file.
    pub(super) fn media(&self, position: usize) -> Option<&'static str> {
        self.media[position]
    }

    /// The reports. `names` gives the class names of a column, by number.
    pub(super) fn finish(self, names: impl Fn(usize) -> Vec<String>) -> (Option<LabelReport>, Option<IdReport>) {
        let labels = self.labels.map(|(position, mut report, counts)| {
            let names = names(position);
            report.classes = counts.into_iter().map(|(class, rows)| named(class, &names, rows)).collect();
            report
        });
        (labels, self.ids.map(|ids| ids.report))
    }
}

fn named(class: Class, names: &[String], rows: u64) -> ClassReport {
    match class {
        Class::Text(label) => ClassReport { label, name: None, rows },
        Class::Number(number) => {
            let name = usize::try_from(number).ok().and_then(|number| names.get(number)).cloned();
            let label = number.to_string();
            ClassReport { name: name.filter(|name| *name != label), label, rows }
        }
    }
}

fn media(column: &Column, row: usize) -> Option<&'static str> {
    let file = match column.cell(row, 1) {
        Ok(Cell::File(file)) => file,
        Ok(Cell::Clip(frames)) => frames.into_iter().next()?.1,
        _ => return None,
    };
    match file {
        File::Bytes(bytes) if is_image(&bytes) => Some("Image"),
        File::Bytes(bytes) if is_audio(&bytes) => Some("Audio"),
        _ => None,
    }
}

impl Ids {
    fn begin(&mut self, file: &str) {
        if self.files.last().is_none_or(|last| last != file) {
            self.files.push(file.to_owned());
        }
    }

    fn count(&mut self, column: &Column, row: usize, number: u64) {
        let Some(id) = column.text_or_integer(row) else {
            self.report.without += 1;
            return;
        };
        let mut key = [0; 16];
        key.copy_from_slice(&Sha256::digest(&id)[..16]);
        let here = (self.files.len() - 1, number);
        let Some(first) = self.seen.get(&key) else {
            self.seen.insert(key, here);
            return;
        };
        self.report.duplicates += 1;
        self.report.within_files += u64::from(first.0 == here.0);
        if self.report.examples.len() < NAMED {
            let place = |(file, row): (usize, u64)| (self.files[file].clone(), row);
            self.report.examples.push(DuplicateReport { id, first: place(*first), again: place(here) });
        }
    }
}
