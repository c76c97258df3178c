//! Labels: integers, or strings that are looked up among the job's classes. For predictions they may be missing.

use std::collections::BTreeSet;

use antiphon_core::spec::{Classes, LabelSpec};
use arrow_schema::DataType;

use super::column::Column;
use super::error::{DataError, SampleError, listed};
use super::shard::Shard;

/// The largest number of classes in the line that an error proposes.
const PROPOSED: usize = 50;

/// The label of a sample without a label. No class has this number, and no split that was opened by
/// [`Dataset::open`](super::Dataset::open) holds it.
pub const UNLABELLED: u32 = u32::MAX;

/// Whether samples have labels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Labels<'a> {
    /// Every row has one.
    Required(&'a LabelSpec),
    /// Files may lack the column. Rows may have null in it, or -1, which is usual in published test sets.
    Optional(&'a LabelSpec),
    /// Labels are not read.
    Ignored,
}

impl<'a> Labels<'a> {
    /// The column's name, for messages.
    pub(super) fn column(self) -> &'a str {
        self.specification().map_or("", |labels| &labels.column)
    }

    /// The label column to read from a file, if there is one.
    pub(super) fn column_of(self, shard: &Shard) -> Option<&'a str> {
        let column = self.specification()?.column.as_str();
        // Some writers give a column without values the type null.
        let found = shard.schema().field_with_name(column).is_ok_and(|field| *field.data_type() != DataType::Null);
        (found || matches!(self, Self::Required(_))).then_some(column)
    }

    /// The label of a row, or [`UNLABELLED`] if it has none and needs none.
    pub(super) fn of_row(self, column: Option<&Column>, row: usize) -> Result<u32, SampleError> {
        match (self, column) {
            (Self::Optional(_), Some(column)) if column.is_null(row) || column.integer(row) == Some(-1) => {
                Ok(UNLABELLED)
            }
            (Self::Required(labels) | Self::Optional(labels), Some(column)) => class_of(column, row, &labels.classes),
            (Self::Required(_) | Self::Optional(_) | Self::Ignored, _) => Ok(UNLABELLED),
        }
    }

    /// The label of a generated row, which always has one.
    pub(super) fn of_generated(self, label: u32) -> u32 {
        if matches!(self, Self::Ignored) { UNLABELLED } else { label }
    }

    fn specification(self) -> Option<&'a LabelSpec> {
        match self {
            Self::Required(labels) | Self::Optional(labels) => Some(labels),
            Self::Ignored => None,
        }
    }
}

/// Checks the type of the label column. If it holds strings, the job must name its classes.
pub(super) async fn check_column(shards: &[Shard], labels: Labels<'_>) -> Result<(), DataError> {
    let Some(LabelSpec { column, classes }) = labels.specification() else { return Ok(()) };
    for shard in shards {
        if labels.column_of(shard).is_none() {
            continue;
        }
        let mut data_type = shard.field(column, "labels.column")?.data_type();
        if let DataType::Dictionary(_, values) = data_type {
            data_type = values;
        }
        let text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let (wanted, remedy) = match classes {
            _ if data_type.is_integer() || *data_type == DataType::Boolean => continue,
            Classes::Names(_) if text => continue,
            Classes::Count(_) if text => ("integers", proposal(shards, column).await?),
            _ => ("integers or strings", "convert the column, or name another by `labels: {column: …}`".to_owned()),
        };
        let (file, column) = (shard.source().url().to_owned(), column.to_owned());
        return Err(DataError::ColumnType { file, column, found: data_type.to_string(), wanted, remedy });
    }
    Ok(())
}

/// A `labels` line with the classes that occur in the data, for the message.
async fn proposal(shards: &[Shard], column: &str) -> Result<String, DataError> {
    let mut names = BTreeSet::new();
    for shard in shards {
        let mut rows = shard.read(&[column])?;
        while let Some(batch) = rows.next().await? {
            let labels = Column::new(batch.column(0));
            for text in (0..batch.num_rows()).filter_map(|row| labels.text(row)) {
                if !names.contains(text) {
                    names.insert(text.to_owned());
                }
                if names.len() > PROPOSED {
                    return Ok(format!(
                        "name the classes: `labels: {{classes: [..]}}` (there are more than {PROPOSED})"
                    ));
                }
            }
        }
    }
    let names: Vec<String> = names.iter().map(|name| yaml(name)).collect();
    Ok(format!("name the classes: `labels: {{column: {column}, classes: [{}]}}`", names.join(", ")))
}

/// A string as YAML, quoted unless it is a plain word.
fn yaml(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// The class of a row.
fn class_of(column: &Column, row: usize, classes: &Classes) -> Result<u32, SampleError> {
    if let Some(number) = column.integer(row) {
        return class_of_number(number, classes.count());
    }
    let Some(text) = column.text(row) else {
        return Err(SampleError::new("the label is null", "give every row a label, or leave the row out"));
    };
    let names = match classes {
        Classes::Names(names) => names.as_slice(),
        Classes::Count(_) => &[],
    };
    names.iter().position(|name| name == text).map(|class| class as u32).ok_or_else(|| {
        SampleError::new(
            format!("label `{text}` is not among the classes {}", listed(names)),
            "add it to `labels.classes` or correct the row",
        )
    })
}

fn class_of_number(number: i128, classes: usize) -> Result<u32, SampleError> {
    if (0..classes as i128).contains(&number) {
        return Ok(number as u32);
    }
    let what = format!("label {number} is not between 0 and {}, the range of {classes} classes", classes - 1);
    let remedy = match number {
        0.. => format!("set `labels.classes` to {} or more, or correct the row", number + 1),
        _ => "leave out rows without a label, or give them one".to_owned(),
    };
    Err(SampleError::new(what, remedy))
}
