//! Generated rows to Parquet files.
//!
//! Rows stream: `ROWS` of them and one row group of about `GROUP_BYTES` are in memory, however many there are. All
//! files are written under temporary names, and are renamed together when the last one is complete. Before that, no
//! file is visible.

mod table;

use std::fs::{File, Permissions};
use std::io::BufWriter;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use antiphon_core::ids::Split;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::Generator;

/// The number of rows that are generated at once.
const ROWS: u64 = 256;
/// The size in memory at which a row group is written out, in bytes.
const GROUP_BYTES: usize = 16 << 20;
/// The largest number of rows in a row group.
const GROUP_ROWS: usize = 65_536;

/// How files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Rows per file, at least 1: files are called `train-00000-of-00003.parquet`. None: one file per split,
    /// `train.parquet`.
    pub rows_per_shard: Option<u64>,
    /// Whether files of an earlier data set may be replaced.
    pub overwrite: bool,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// The split that it belongs to.
    pub split: Split,
    /// The file.
    pub path: PathBuf,
    /// The number of rows in it.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why files could not be written. No new file exists then, and earlier files remain.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another data set is in the folder.
    #[error("`{}` already exists; use --force to replace the data set, or name another folder", .path.display())]
    Exists {
        /// Its first file.
        path: PathBuf,
    },
    /// The file system rejected a file.
    #[error("cannot write `{}`: {source}; name a folder that can be written to and has space", .path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The Parquet writer failed on a file.
    #[error("cannot write `{}`: {source}; name a folder that can be written to and has space", .path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The error of the Parquet writer.
        #[source]
        source: ParquetError,
    },
}

/// A file that has its temporary name.
struct Unnamed {
    file: WrittenFile,
    temporary: NamedTempFile,
}

/// Writes all splits that have rows into `folder`, which is created if necessary. `progress` receives the number of
/// rows so far and may abort. Then no file is written, and the result is None.
///
/// # Errors
/// If files exist that may not be replaced, or the folder cannot be written to.
pub fn write(
    generator: &Generator,
    folder: &Path,
    options: WriteOptions,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Option<Vec<WrittenFile>>, WriteError> {
    std::fs::create_dir_all(folder).map_err(|source| WriteError::File { path: folder.to_owned(), source })?;
    let earlier = data_files(folder)?;
    if let (Some(path), false) = (earlier.first(), options.overwrite) {
        return Err(WriteError::Exists { path: path.clone() });
    }
    let schema = table::schema(generator);
    let (mut done, mut unnamed) = (0, Vec::new());
    for (split, name, rows) in plan(generator, options.rows_per_shard) {
        let mut shard = Shard::create(folder, split, &name, &schema)?;
        for start in rows.clone().step_by(ROWS as usize) {
            let end = rows.end.min(start + ROWS);
            shard.write(generator, start..end)?;
            done += end - start;
            if progress(done).is_break() {
                return Ok(None);
            }
        }
        unnamed.push(shard.finish()?);
    }
    name_all(unnamed, &earlier, options.overwrite).map(Some)
}

/// Split, name and rows of every file.
fn plan(generator: &Generator, rows_per_shard: Option<u64>) -> Vec<(Split, String, Range<u64>)> {
    let mut files = Vec::new();
    for split in [Split::Train, Split::Validation, Split::Test] {
        let rows = generator.len(split);
        let Some(size) = rows_per_shard.map(|size| size.max(1)) else {
            files.extend((rows > 0).then(|| (split, format!("{split}.parquet"), 0..rows)));
            continue;
        };
        let shards = rows.div_ceil(size);
        files.extend((0..shards).map(|shard| {
            let name = format!("{split}-{shard:05}-of-{shards:05}.parquet");
            (split, name, shard * size..rows.min((shard + 1) * size))
        }));
    }
    files
}

/// The files of an earlier data set in this folder, in order.
fn data_files(folder: &Path) -> Result<Vec<PathBuf>, WriteError> {
    let failed = |source| WriteError::File { path: folder.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_ours) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file is named as [`plan`] names them.
fn is_ours(name: &str) -> bool {
    let number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(stem) = name.strip_suffix(".parquet") else { return false };
    let splits = [Split::Train, Split::Validation, Split::Test];
    splits.into_iter().filter_map(|split| stem.strip_prefix(&split.to_string())).any(|rest| {
        let shard = rest.strip_prefix('-').and_then(|rest| rest.split_once("-of-"));
        rest.is_empty() || shard.is_some_and(|(shard, shards)| number(shard) && number(shards))
    })
}

/// Gives all files their final names, then removes what is left of the data set that they replace.
fn name_all(unnamed: Vec<Unnamed>, earlier: &[PathBuf], overwrite: bool) -> Result<Vec<WrittenFile>, WriteError> {
    let mut written: Vec<WrittenFile> = Vec::new();
    for Unnamed { file, temporary } in unnamed {
        let named = if overwrite { temporary.persist(&file.path) } else { temporary.persist_noclobber(&file.path) };
        match named {
            Ok(_) => written.push(file),
            Err(error) => {
                // New files can be removed again; replaced files cannot be restored.
                if !overwrite {
                    written.iter().for_each(|file| drop(std::fs::remove_file(&file.path)));
                }
                return Err(match error.error.kind() {
                    std::io::ErrorKind::AlreadyExists => WriteError::Exists { path: file.path },
                    _ => WriteError::File { path: file.path, source: error.error },
                });
            }
        }
    }
    for path in earlier.iter().filter(|path| !written.iter().any(|file| file.path == **path)) {
        std::fs::remove_file(path).map_err(|source| WriteError::File { path: path.clone(), source })?;
    }
    Ok(written)
}

/// A file that is being written.
struct Shard<'a> {
    file: WrittenFile,
    temporary: NamedTempFile,
    writer: ArrowWriter<BufWriter<File>>,
    schema: &'a SchemaRef,
}

impl<'a> Shard<'a> {
    fn create(folder: &Path, split: Split, name: &str, schema: &'a SchemaRef) -> Result<Self, WriteError> {
        let path = folder.join(name);
        let failed = |source| WriteError::File { path: path.clone(), source };
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            // The umask applies, as for any other file.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(failed)?;
        let out = BufWriter::new(temporary.reopen().map_err(failed)?);
        let metadata = schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            // No value occurs twice.
            .set_dictionary_enabled(false)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(Some(metadata.collect()))
            .build();
        let writer = ArrowWriter::try_new(out, SchemaRef::clone(schema), Some(properties))
            .map_err(|source| WriteError::Parquet { path: path.clone(), source })?;
        let file = WrittenFile { split, path, rows: 0, bytes: 0 };
        Ok(Self { file, temporary, writer, schema })
    }

    fn write(&mut self, generator: &Generator, rows: Range<u64>) -> Result<(), WriteError> {
        self.file.rows += rows.end - rows.start;
        let batch = table::batch(generator, self.schema, self.file.split, rows).map_err(ParquetError::from);
        let written = batch.and_then(|batch| {
            self.writer.write(&batch)?;
            if self.writer.in_progress_size() >= GROUP_BYTES { self.writer.flush() } else { Ok(()) }
        });
        written.map_err(|source| WriteError::Parquet { path: self.file.path.clone(), source })
    }

    fn finish(self) -> Result<Unnamed, WriteError> {
        let Self { mut file, temporary, writer, .. } = self;
        writer.close().map_err(|source| WriteError::Parquet { path: file.path.clone(), source })?;
        let synced = temporary.as_file().sync_all().and_then(|()| temporary.as_file().metadata());
        match synced {
            Ok(metadata) => file.bytes = metadata.len(),
            Err(source) => return Err(WriteError::File { path: file.path, source }),
        }
        Ok(Unnamed { file, temporary })
    }
}
