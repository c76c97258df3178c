//! Generated data sets: rows made from a seed, without a download.
//!
//! 1. A row is a pure function of (kind, seed, split, index, column): any worker makes any row at any time, in any
//!    order.
//! 2. Bytes do not depend on the machine (see `exact`). PNG files may differ between releases of their encoder, but not
//!    in their pixels.
//! 3. Rows 10 i to 10 i + 9 hold every class once.
//! 4. Writers and speakers of one split do not occur in another.
//! 5. A sample never lacks all of its columns, even if every column has missing values.
//!
//! [`mod@write`] writes files. [`super::Dataset`](crate) reads rows for training.

mod classes;
mod digits;
mod exact;
mod features;
pub mod write;

use antiphon_core::ids::Split;
use antiphon_core::rng;
use antiphon_core::spec::{SynthKind, SynthSamples};

use super::row::{RawRow, RawValue};
use exact::Dice;

pub use classes::CLASSES;

/// Why a data set cannot be generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SynthError {
    /// The data set has no such column.
    #[error("generated data `{kind}` has no column `{column}`: use one of {}", list(.known))]
    UnknownColumn {
        /// The data set's name.
        kind: &'static str,
        /// The requested column.
        column: String,
        /// The columns of the data set.
        known: &'static [&'static str],
    },
    /// Each sample must keep a value, so this many values cannot be missing.
    #[error(
        "missing share {missing} is not possible in generated data `{kind}`: every sample keeps one of its {columns} \
         columns, so use a number from 0 to {most:.3}"
    )]
    MissingShare {
        /// The data set's name.
        kind: &'static str,
        /// The requested share.
        missing: f64,
        /// The number of columns.
        columns: usize,
        /// The largest possible share.
        most: f64,
    },
    /// The training split is empty.
    #[error("generated data `{kind}` needs at least 1 training sample: set samples.train")]
    NoTrainingSamples {
        /// The data set's name.
        kind: &'static str,
    },
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The kind of values in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// PNG, 28 × 28, grey.
    Image,
    /// WAV, 8 kHz, mono, 16 bit, at most one second.
    Audio,
    /// UTF-8.
    Text,
    /// A vector of this many numbers.
    Features(u32),
}

/// A column of a generated data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    position: usize,
    name: &'static str,
    kind: ColumnKind,
}

impl Column {
    /// Its name: `image`, `a`, ...
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The kind of its values.
    #[must_use]
    pub fn kind(&self) -> ColumnKind {
        self.kind
    }
}

fn column_kind(kind: SynthKind, position: usize) -> ColumnKind {
    match (kind, position) {
        (SynthKind::SpokenDigits, 0) => ColumnKind::Image,
        (SynthKind::SpokenDigits, 1) => ColumnKind::Audio,
        (SynthKind::SpokenDigits, _) => ColumnKind::Text,
        (SynthKind::Features, _) => ColumnKind::Features(features::WIDTH),
    }
}

/// Generates the rows of one data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Generator {
    kind: SynthKind,
    seed: u64,
    samples: SynthSamples,
    missing: f64,
}

impl Generator {
    /// A data set with `samples` rows per split. In each column, the fraction `missing` of values is missing.
    ///
    /// # Errors
    /// If `missing` is not in 0 ..= (columns − 1) / columns, or the training split would be empty.
    pub fn new(kind: SynthKind, seed: u64, samples: SynthSamples, missing: f64) -> Result<Self, SynthError> {
        let columns = kind.columns().len();
        let most = (columns - 1) as f64 / columns as f64;
        if !(0.0..=most).contains(&missing) {
            return Err(SynthError::MissingShare { kind: kind.name(), missing, columns, most });
        }
        if samples.train == 0 {
            return Err(SynthError::NoTrainingSamples { kind: kind.name() });
        }
        Ok(Self { kind, seed, samples, missing })
    }

    /// The kind of data set.
    #[must_use]
    pub fn kind(&self) -> SynthKind {
        self.kind
    }

    /// The number of rows of a split, including those that lack values.
    #[must_use]
    pub fn len(&self, split: Split) -> u64 {
        match split {
            Split::Train => self.samples.train,
            Split::Validation => self.samples.validation,
            Split::Test => self.samples.test,
        }
    }

    /// Whether a split has no rows.
    #[must_use]
    pub fn is_empty(&self, split: Split) -> bool {
        self.len(split) == 0
    }

    /// All columns, in the order in which files hold them.
    #[must_use]
    pub fn columns(&self) -> Vec<Column> {
        let kind = self.kind;
        let names = kind.columns().iter().enumerate();
        names.map(|(position, name)| Column { position, name, kind: column_kind(kind, position) }).collect()
    }

    /// The column of this name.
    ///
    /// # Errors
    /// If the data set has no such column.
    pub fn column(&self, name: &str) -> Result<Column, SynthError> {
        self.columns().into_iter().find(|column| column.name == name).ok_or_else(|| SynthError::UnknownColumn {
            kind: self.kind.name(),
            column: name.to_owned(),
            known: self.kind.columns(),
        })
    }

    /// The id of a row: `train-000123`.
    #[must_use]
    pub fn id(&self, split: Split, index: u64) -> String {
        format!("{split}-{index:06}")
    }

    /// The class of a row, below [`CLASSES`]. Rows 10 i to 10 i + 9 hold every class once.
    #[must_use]
    pub fn label(&self, split: Split, index: u64) -> u32 {
        let classes = u64::from(CLASSES);
        let mut dice = self.dice(&["label", &split.to_string()], index / classes);
        let mut order: Vec<u32> = (0..CLASSES).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, dice.below(last + 1));
        }
        order[(index % classes) as usize]
    }

    /// Whether a row has a value in `column`.
    ///
    /// One column per row, drawn uniformly, always keeps its value. Each other value is missing with probability
    /// missing · n / (n − 1) for n columns, so each column lacks the fraction `missing` of its values.
    #[must_use]
    pub fn has(&self, split: Split, index: u64, column: Column) -> bool {
        let columns = self.kind.columns().len();
        let mut dice = self.dice(&["missing", &split.to_string()], index);
        let kept = dice.below(columns);
        let share = self.missing * columns as f64 / (columns - 1) as f64;
        let lacking: Vec<bool> = (0..columns).map(|_| dice.chance(share)).collect();
        kept == column.position || !lacking[column.position]
    }

    /// A row with its value in `column`, None where it is missing. Every index has a row, even past the end.
    #[must_use]
    pub fn row(&self, split: Split, index: u64, column: Column) -> RawRow {
        let label = self.label(split, index);
        let value = self.has(split, index, column).then(|| self.value(split, index, label, column));
        RawRow { id: self.id(split, index), label, value }
    }

    fn value(&self, split: Split, index: u64, label: u32, column: Column) -> RawValue {
        let digit = label as usize;
        let split = &split.to_string();
        let mut dice = self.dice(&["value", column.name, split], index);
        match column.kind {
            ColumnKind::Image => {
                let writer = dice.below(digits::image::WRITERS);
                let writer = digits::image::Writer::new(self.dice(&["writer", split], writer as u64));
                RawValue::Bytes(digits::image::png(digit, &writer, &mut dice))
            }
            ColumnKind::Audio => {
                let speaker = |number: u64| digits::voice::Speaker::new(self.dice(&["speaker", split], number));
                RawValue::Bytes(digits::audio::wav(digit, &speaker, &mut dice))
            }
            ColumnKind::Text => RawValue::Text(digits::text::phrase(digit, &mut dice)),
            ColumnKind::Features(_) => {
                let stream = |name: &str, number: u32| self.dice(&["centre", column.name, name], u64::from(number));
                RawValue::Features(features::vector(label, column.position, &stream, &mut dice))
            }
        }
    }

    /// The random stream of `path` and `number` in this data set.
    fn dice(&self, path: &[&str], number: u64) -> Dice {
        let mut components = vec!["synth".into(), self.kind.name().into()];
        components.extend(path.iter().map(|&name| rng::Component::from(name)));
        components.push(number.into());
        Dice::new(rng::stream(self.seed, &components))
    }
}

#[cfg(test)]
mod tests;
