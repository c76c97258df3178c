//! One Parquet file: its columns, and its rows batch by batch.
//!
//! It is read in ranges: first the footer, then the chunks of the wanted columns, row group by row group. The wanted
//! columns of one row group, as stored, and 256 decoded rows are in memory at a time. A file with a single row group is
//! in memory as a whole, so files of large values need row groups of moderate size.

use arrow_array::RecordBatch;
use arrow_schema::{Field, SchemaRef};
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataPushDecoder;

use super::error::DataError;
use super::source::Source;

/// The number of rows that are decoded at once.
const ROWS: usize = 256;
/// The bytes that are read from the end of a file first. Nearly every footer is shorter.
const FOOTER_GUESS: u64 = 64 << 10;

/// A Parquet file whose footer has been read.
#[derive(Debug, Clone)]
pub struct Shard {
    source: Source,
    metadata: ArrowReaderMetadata,
}

impl Shard {
    /// Reads the footer of a file.
    ///
    /// # Errors
    /// If the file cannot be reached, is not Parquet, or is truncated.
    pub async fn open(source: Source) -> Result<Self, DataError> {
        let size = source.size();
        let tail = size.saturating_sub(FOOTER_GUESS)..size;
        let bytes = source.read(tail.clone()).await?;
        if size < 12 || !bytes.ends_with(b"PAR1") {
            return Err(no_footer(&source).await);
        }
        let damaged = |error: ParquetError| damaged(&source, &error);
        let mut decoder = ParquetMetaDataPushDecoder::try_new(size).map_err(damaged)?;
        decoder.push_range(tail, bytes).map_err(damaged)?;
        let metadata = loop {
            match decoder.try_decode().map_err(damaged)? {
                DecodeResult::Data(metadata) => break metadata,
                DecodeResult::NeedsData(ranges) => {
                    let bytes = source.read_ranges(&ranges).await?;
                    decoder.push_ranges(ranges, bytes).map_err(damaged)?;
                }
                DecodeResult::Finished => {
                    return Err(damaged(ParquetError::General("the footer has no content".into())));
                }
            }
        };
        let metadata = ArrowReaderMetadata::try_new(metadata.into(), ArrowReaderOptions::new()).map_err(damaged)?;
        Ok(Self { source, metadata })
    }

    /// The file in its store.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The columns of the file and their types.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Rows in the file.
    #[must_use]
    pub fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Row groups in the file.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// A column by name; `key` is the key of the job file that names it.
    ///
    /// # Errors
    /// If the file has no such column. The error lists its columns.
    pub fn field(&self, column: &str, key: &'static str) -> Result<&Field, DataError> {
        self.schema().field_with_name(column).map_err(|_| DataError::NoColumn {
            file: self.source.url().to_owned(),
            column: column.to_owned(),
            key,
            there: self.schema().fields().iter().map(|field| field.name().clone()).collect(),
        })
    }

    /// Reads these columns, starting at the first row.
    ///
    /// # Errors
    /// If the footer is damaged.
    pub fn read(&self, columns: &[&str]) -> Result<Rows, DataError> {
        let fields = self.schema().fields();
        let wanted = (0..fields.len()).filter(|i| columns.contains(&fields[*i].name().as_str()));
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), wanted);
        let decoder = ParquetPushDecoderBuilder::new_with_metadata(self.metadata.clone())
            .with_batch_size(ROWS)
            .with_projection(mask)
            .build()
            .map_err(|error| damaged(&self.source, &error))?;
        Ok(Rows { source: self.source.clone(), decoder })
    }
}

/// Rows of a file, in order.
#[derive(Debug)]
pub struct Rows {
    source: Source,
    decoder: ParquetPushDecoder,
}

impl Rows {
    /// The next rows, or None after the last.
    ///
    /// # Errors
    /// If the file can no longer be reached or is damaged.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, DataError> {
        loop {
            match self.decoder.try_decode().map_err(|error| damaged(&self.source, &error))? {
                DecodeResult::Data(batch) => return Ok(Some(batch)),
                DecodeResult::Finished => return Ok(None),
                DecodeResult::NeedsData(ranges) => {
                    if let Some(range) = ranges.iter().find(|range| range.end > self.source.size()) {
                        let reason =
                            format!("its footer names bytes up to {}, but it has {}", range.end, self.source.size());
                        return Err(file_error(
                            &self.source,
                            reason,
                            "the file is damaged or truncated; copy it again",
                        ));
                    }
                    let bytes = self.source.read_ranges(&ranges).await?;
                    self.decoder.push_ranges(ranges, bytes).map_err(|error| damaged(&self.source, &error))?;
                }
            }
        }
    }
}

fn file_error(source: &Source, reason: String, remedy: &str) -> DataError {
    DataError::File { file: source.url().to_owned(), reason, remedy: remedy.to_owned() }
}

fn damaged(source: &Source, error: &ParquetError) -> DataError {
    file_error(
        source,
        format!("cannot be read as Parquet: {error}"),
        "the file is damaged or truncated; copy or write it again",
    )
}

/// Why a file does not end like Parquet: it is another format, or its end is missing.
async fn no_footer(source: &Source) -> DataError {
    match source.read(0..source.size().min(4)).await {
        Ok(start) if start == b"PAR1".as_slice() => file_error(
            source,
            format!("begins like a Parquet file, but its {} bytes do not end with a footer", source.size()),
            "the file is truncated; copy or write it again",
        ),
        Ok(_) => file_error(
            source,
            "is not a Parquet file".to_owned(),
            "convert it, for example with pandas: DataFrame.to_parquet",
        ),
        Err(error) => error,
    }
}
