//! Inspection of data files before training: their columns, their number of rows, and missing values.
//!
//! ```text
//! names ─ source ─ shard ─┬ tables: files of the same columns ─ tally: missing values, classes, ids
//!                         └ sample: the first rows, value by value
//! ```
//! Every row is read, a batch at a time. About 40 bytes per row stay in memory, for its id. A value that cannot be read
//! is shown as unreadable; a file that cannot be read is an error.

mod sample;
mod tally;
#[cfg(test)]
mod tests;
mod words;

use serde::Serialize;
use serde_json::Value;

use super::error::DataError;
use super::shard::Shard;
use super::source;
use super::stores::Stores;
use tally::Tally;

pub use sample::{NamedValue, Picture, SampleReport, ValueReport};
pub use tally::{ClassReport, DuplicateReport, IdReport, LabelReport};

/// The default columns.
const LABEL: &str = "label";
const ID: &str = "id";

/// The options of an inspection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InspectOptions {
    /// The column of classes. None: `label`, in files that have it.
    pub label: Option<String>,
    /// The column of ids. None: `id`, in files that have it.
    pub id: Option<String>,
    /// The number of rows to show from every table.
    pub samples: usize,
}

/// The result of an inspection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The tables. Files with the same columns form one table.
    pub tables: Vec<TableReport>,
}

/// Files with the same columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    /// The files, sorted by name.
    pub files: Vec<FileReport>,
    /// The number of rows in all files.
    pub rows: u64,
    /// The columns, in the order of the files.
    pub columns: Vec<ColumnReport>,
    /// None without such a column.
    pub labels: Option<LabelReport>,
    /// None without such a column.
    pub ids: Option<IdReport>,
    /// The first rows.
    pub samples: Vec<SampleReport>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Path or URL.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// The number of rows in the file.
    pub rows: u64,
    /// The number of row groups. When the file is read, one row group is in memory at a time.
    pub row_groups: usize,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnReport {
    /// Its name.
    pub name: String,
    /// The Arrow name of its type.
    pub arrow: String,
    /// The name of its type in Hugging Face's `datasets`.
    pub feature: String,
    /// The number of rows without a value.
    pub missing: u64,
    /// The fraction of rows without a value. 0 if there are no rows.
    pub missing_rate: f64,
}

/// Inspects all files in `stores` that match the names (paths or URLs, with wildcards). `progress` receives the number
/// of rows read so far, and of all rows.
///
/// # Errors
/// If a name matches no file, a store does not answer, a file is damaged or not Parquet, or a file lacks a column that
/// the options name.
pub async fn inspect(
    names: &[String],
    stores: &Stores,
    options: &InspectOptions,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Inspection, DataError> {
    let mut shards = Vec::new();
    for source in source::resolve(names, stores).await? {
        shards.push(Shard::open(source).await?);
    }
    for shard in &shards {
        for (column, key) in [(&options.label, "--label"), (&options.id, "--id")] {
            if let Some(column) = column {
                shard.field(column, key)?;
            }
        }
    }
    let all = shards.iter().map(Shard::rows).sum();
    let (mut tables, mut done) = (Vec::new(), 0);
    for shards in by_columns(shards) {
        tables.push(
            table(&shards, options, &mut |rows| {
                done += rows;
                progress(done, all);
            })
            .await?,
        );
    }
    Ok(Inspection { tables })
}

/// Groups files with the same columns, and otherwise keeps their order.
fn by_columns(shards: Vec<Shard>) -> Vec<Vec<Shard>> {
    let mut groups: Vec<Vec<Shard>> = Vec::new();
    for shard in shards {
        match groups.iter_mut().find(|group| group[0].schema().fields() == shard.schema().fields()) {
            Some(group) => group.push(shard),
            None => groups.push(vec![shard]),
        }
    }
    groups
}

async fn table(
    shards: &[Shard],
    options: &InspectOptions,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<TableReport, DataError> {
    let schema = shards[0].schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let position = |given: &Option<String>, usual: &str| {
        let wanted = given.as_deref().unwrap_or(usual);
        names.iter().position(|name| *name == wanted)
    };
    let declared: Vec<Option<Value>> = names.iter().map(|name| words::declared(schema, name)).collect();
    let mut tally = Tally::new(&names, position(&options.label, LABEL), position(&options.id, ID));
    let mut samples = Vec::new();
    for shard in shards {
        let mut rows = shard.read(&names)?;
        let mut first = 0;
        while let Some(batch) = rows.next().await? {
            for row in 0..batch.num_rows().min(options.samples.saturating_sub(samples.len())) {
                samples.push(sample::look(shard, &batch, row, first + row as u64).await);
            }
            tally.count(shard.source().url(), first, &batch);
            first += batch.num_rows() as u64;
            progress(batch.num_rows() as u64);
        }
    }
    let columns = schema.fields().iter().enumerate().map(|(i, field)| ColumnReport {
        name: field.name().clone(),
        arrow: field.data_type().to_string(),
        feature: words::feature(field, declared[i].as_ref(), tally.media(i)),
        missing: tally.missing(i),
        missing_rate: if tally.rows() == 0 { 0.0 } else { tally.missing(i) as f64 / tally.rows() as f64 },
    });
    let columns = columns.collect();
    let rows = tally.rows();
    let (labels, ids) = tally.finish(|position| words::class_names(declared[position].as_ref()));
    Ok(TableReport { files: shards.iter().map(file).collect(), rows, columns, labels, ids, samples })
}

fn file(shard: &Shard) -> FileReport {
    FileReport {
        file: shard.source().url().to_owned(),
        bytes: shard.source().size(),
        rows: shard.rows(),
        row_groups: shard.row_groups(),
    }
}
