//! Opening a split: from the job's `data` to a [`Dataset`]. Rows keep their order. Files that rows name by `path` are
//! read a few rows ahead.

use antiphon_core::ids::{SAMPLE_ID_LIMIT, Split};
use antiphon_core::spec::{DataSpec, InputSpec, LabelSpec, ModalitySpec, ValidationSource};
use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};

use super::column::{Cell, Column, ColumnKind, File};
use super::dataset::{Dataset, OpenOptions};
use super::error::{DataError, SampleError, SampleOrigin};
use super::gather::Gatherer;
use super::label::{self, Labels};
use super::row::{Frame, RawRow, RawValue};
use super::shard::Shard;
use super::source::{self, Source};
use super::synth::Generator;

/// The number of files named by `path` that are read concurrently.
const FILES_AT_ONCE: usize = 16;

/// Which rows of the files belong to the split.
#[derive(Debug, Clone, Copy)]
enum Share {
    All,
    /// Rows whose draw is below the fraction.
    Below(f64),
    /// Rows whose draw is not below the fraction.
    From(f64),
}

impl Dataset {
    /// Reads a split: its index into memory, its values into memory or the temporary file.
    ///
    /// # Errors
    /// The first [`DataError`] in the order of rows. An empty split is an error, and so is a training split in which no
    /// sample has the modality. For an optional split, check [`Dataset::is_declared`] first.
    pub async fn open(
        modality: &ModalitySpec,
        labels: &LabelSpec,
        split: Split,
        seed: u64,
        options: &OpenOptions,
    ) -> Result<Self, DataError> {
        open(modality, Labels::Required(labels), split, seed, options).await
    }

    /// As [`Dataset::open`], for predictions. Labels are read where they exist: the column may be missing, and rows may
    /// have null or -1 in it. With None, no labels are read. A sample without a label has
    /// [`UNLABELLED`](super::UNLABELLED) as [`Dataset::label`].
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
        open(modality, labels, split, seed, options).await
    }

    /// Whether the job has this split: validation and test are optional.
    #[must_use]
    pub fn is_declared(modality: &ModalitySpec, split: Split) -> bool {
        is_declared(&modality.data, split)
    }
}

fn is_declared(data: &DataSpec, split: Split) -> bool {
    match (data, split) {
        (_, Split::Train) => true,
        (DataSpec::Parquet { validation: ValidationSource::Files(files), .. }, Split::Validation) => !files.is_empty(),
        (DataSpec::Parquet { validation: ValidationSource::Fraction(share), .. }, Split::Validation) => *share > 0.0,
        (DataSpec::Parquet { test, .. }, Split::Test) => !test.is_empty(),
        (DataSpec::Synth { samples, .. }, Split::Validation) => samples.validation > 0,
        (DataSpec::Synth { samples, .. }, Split::Test) => samples.test > 0,
    }
}

async fn open(
    modality: &ModalitySpec,
    labels: Labels<'_>,
    split: Split,
    seed: u64,
    options: &OpenOptions,
) -> Result<Dataset, DataError> {
    let empty = |column: &str, reason: &str| {
        Err(DataError::EmptySplit { split, column: column.to_owned(), reason: reason.to_owned() })
    };
    let dataset = match &modality.data {
        DataSpec::Parquet { train, validation, test, column, id } => {
            if !is_declared(&modality.data, split) {
                return empty(column, &format!("the job names no files for it; give `data: {{{split}: …}}`"));
            }
            let (files, share) = files_of(train, validation, test, split);
            let reading = Reading { column, id: id.as_deref(), labels, input: &modality.input, share, seed };
            reading.gather(files, Gatherer::new(column, split, options)).await?
        }
        DataSpec::Synth { kind, column, samples, missing, seed } => {
            let generator = Generator::new(*kind, *seed, *samples, *missing)?;
            let column = generator.column(column)?;
            let mut gatherer = Gatherer::new(column.name(), split, options);
            gatherer.begin_file(&format!("synth {}", kind.name()));
            for index in 0..generator.len(split) {
                let mut row = generator.row(split, index, column);
                row.label = labels.of_generated(row.label);
                gatherer.push(index, row)?;
            }
            gatherer.finish()?
        }
    };
    match (dataset.rows(), split) {
        (0, Split::Validation) => {
            empty(dataset.column(), "no row was selected for it; give more rows, a larger share, or `validation: 0`")
        }
        (0, _) => empty(dataset.column(), "its files have no rows; give files with rows"),
        (_, Split::Train) if dataset.is_empty() => empty(
            dataset.column(),
            "the column is null in every row; give rows that have this modality, or leave the modality out",
        ),
        _ => Ok(dataset),
    }
}

fn files_of<'a>(
    train: &'a [String],
    validation: &'a ValidationSource,
    test: &'a [String],
    split: Split,
) -> (&'a [String], Share) {
    match (split, validation) {
        (Split::Test, _) => (test, Share::All),
        (Split::Validation, ValidationSource::Files(files)) => (files, Share::All),
        (Split::Train, ValidationSource::Files(_)) => (train, Share::All),
        (Split::Validation, ValidationSource::Fraction(share)) => (train, Share::Below(*share)),
        (Split::Train, ValidationSource::Fraction(share)) => (train, Share::From(*share)),
    }
}

impl Share {
    /// The draw is the first 53 bits of SHA-256 of a tag, the seed and the id, over 2^53: the same in every modality.
    fn takes(self, seed: u64, id: &str) -> bool {
        let (fraction, below) = match self {
            Self::All => return true,
            Self::Below(fraction) => (fraction, true),
            Self::From(fraction) => (fraction, false),
        };
        let hash =
            Sha256::new().chain_update(b"antiphon.validation.v1").chain_update(seed.to_le_bytes()).chain_update(id);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        let draw = (u64::from_be_bytes(first) >> 11) as f64 / (1_u64 << 53) as f64;
        (draw < fraction) == below
    }
}

/// The parameters for reading Parquet files.
struct Reading<'a> {
    column: &'a str,
    id: Option<&'a str>,
    labels: Labels<'a>,
    input: &'a InputSpec,
    share: Share,
    seed: u64,
}

impl Reading<'_> {
    async fn gather(&self, files: &[String], mut gatherer: Gatherer) -> Result<Dataset, DataError> {
        let mut shards = Vec::new();
        for source in source::resolve(files, &gatherer.stores).await? {
            shards.push(Shard::open(source).await?);
        }
        self.check_columns(&shards).await?;
        let mut number = 0;
        for shard in &shards {
            self.gather_shard(shard, &mut number, &mut gatherer).await?;
        }
        gatherer.finish()
    }

    /// Checks the columns of all files before any row is read, so that a wrong file is found at once.
    async fn check_columns(&self, shards: &[Shard]) -> Result<(), DataError> {
        for shard in shards {
            let field = shard.field(self.column, "data.column")?;
            let found = field.data_type();
            let kind = ColumnKind::of(found);
            let (wanted, fits) = wanted(self.input);
            if !kind.is_some_and(|kind| fits.contains(&kind)) {
                return Err(DataError::ColumnType {
                    file: shard.source().url().to_owned(),
                    column: self.column.to_owned(),
                    found: found.to_string(),
                    wanted,
                    remedy: "name another column by `data: {column: …}`, or correct `input`".to_owned(),
                });
            }
            if let Some(id) = self.id {
                let found = shard.field(id, "data.id")?.data_type();
                if !found.is_integer() && !found.is_string() {
                    return Err(DataError::ColumnType {
                        file: shard.source().url().to_owned(),
                        column: id.to_owned(),
                        found: found.to_string(),
                        wanted: "integers or strings",
                        remedy: "name another column by `data: {id: …}`, or leave `id` out to number the rows"
                            .to_owned(),
                    });
                }
            }
        }
        label::check_column(shards, self.labels).await
    }

    async fn gather_shard(&self, shard: &Shard, number: &mut u64, gatherer: &mut Gatherer) -> Result<(), DataError> {
        let file = shard.source().url();
        gatherer.begin_file(file);
        let label = self.labels.column_of(shard);
        let columns: Vec<&str> = [self.column].into_iter().chain(label).chain(self.id).collect();
        let mut rows = shard.read(&columns)?;
        let mut first = 0;
        while let Some(batch) = rows.next().await? {
            self.gather_batch(shard, &batch, (first, *number), gatherer).await?;
            first += batch.num_rows() as u64;
            *number += batch.num_rows() as u64;
        }
        Ok(())
    }

    /// Rows from row `first` of the file and `number` of all files on.
    async fn gather_batch(
        &self,
        shard: &Shard,
        batch: &RecordBatch,
        (first, number): (u64, u64),
        gatherer: &mut Gatherer,
    ) -> Result<(), DataError> {
        let column = |name: &str| batch.column_by_name(name).map(Column::new);
        let Some(values) = column(self.column) else { return Ok(()) };
        let classes = self.labels.column_of(shard).and_then(column);
        let ids = self.id.and_then(column);
        let file = shard.source().url();
        let rows = (0..batch.num_rows()).map(|i| {
            let row = first + i as u64;
            let id = match &ids {
                None => format!("{:012}", number + i as u64),
                Some(ids) => checked_id(ids.text_or_integer(i)).map_err(|error| self.id_error(file, row, error))?,
            };
            let taken = self.share.takes(self.seed, &id);
            taken.then(|| self.row(shard.source(), (&values, classes.as_ref()), i, id, row)).transpose()
        });
        // Errors are reported in the order of the rows, even those of files that are read ahead.
        let mut samples = stream::iter(rows.filter_map(Result::transpose)).map(completed).buffered(FILES_AT_ONCE);
        while let Some(sample) = samples.next().await {
            let (row, sample, failed) = sample?;
            if let Some(error) = failed {
                return Err(gatherer.sample_error(row, &sample.id, error));
            }
            gatherer.push(row, sample)?;
        }
        Ok(())
    }

    /// A row with its value, unless that is in a separate file.
    fn row(
        &self,
        source: &Source,
        (values, classes): (&Column, Option<&Column>),
        i: usize,
        id: String,
        row: u64,
    ) -> Result<Row, DataError> {
        let at = |column: &str, error| {
            let place = SampleOrigin { file: source.url().to_owned(), row: Some(row), id: Some(id.clone()) };
            DataError::Sample { place: Box::new(place), column: column.to_owned(), error }
        };
        let label = self.labels.of_row(classes, i).map_err(|error| at(self.labels.column(), error))?;
        let frames = if let InputSpec::Image { frames, .. } = self.input { *frames } else { 1 };
        let (value, files) = match values.cell(i, frames).map_err(|error| at(self.column, error))? {
            Cell::Absent => (None, None),
            Cell::Text(text) => (Some(RawValue::Text(text)), None),
            Cell::Features(numbers) => (Some(RawValue::Features(numbers)), None),
            Cell::File(File::Bytes(bytes)) => (Some(RawValue::Bytes(bytes)), None),
            Cell::File(file) => (None, Some((source.clone(), Files::One(file)))),
            Cell::Clip(frames) => (None, Some((source.clone(), Files::Clip(frames)))),
        };
        Ok(Row { row, sample: RawRow { id, label, value }, files })
    }

    fn id_error(&self, file: &str, row: u64, error: SampleError) -> DataError {
        let place = SampleOrigin { file: file.to_owned(), row: Some(row), id: None };
        DataError::Sample { place: Box::new(place), column: self.id.unwrap_or_default().to_owned(), error }
    }
}

/// A row whose value may still have to be read.
struct Row {
    /// Within the file.
    row: u64,
    sample: RawRow,
    /// The Parquet file, and the files in it or beside it that are the value.
    files: Option<(Source, Files)>,
}

/// The files of a value.
enum Files {
    One(File),
    Clip(Vec<(u32, File)>),
}

impl Files {
    async fn read(self, source: &Source) -> Result<RawValue, SampleError> {
        match self {
            Self::One(file) => read(source, file).await.map(RawValue::Bytes),
            Self::Clip(files) => {
                let mut frames: Vec<Frame> = Vec::with_capacity(files.len());
                for (position, file) in files {
                    let bytes = match frames.last() {
                        Some(last) if last.position == position => last.bytes.clone(),
                        _ => read(source, file).await.map_err(|error| error.in_frame(position as usize))?,
                    };
                    frames.push(Frame { position, bytes });
                }
                Ok(RawValue::Clip(frames))
            }
        }
    }
}

async fn read(source: &Source, file: File) -> Result<Bytes, SampleError> {
    let name = match file {
        File::Bytes(bytes) => return Ok(bytes),
        File::Beside(name) => name,
    };
    source.read_beside(&name).await.map_err(|error| {
        SampleError::new(
            format!("its `path` is `{name}`, which cannot be read: {error}"),
            "put the file beside the Parquet file, or its bytes into `bytes`",
        )
    })
}

/// A row's number and the row, with the error of the files that it names, if any.
async fn completed(row: Result<Row, DataError>) -> Result<(u64, RawRow, Option<SampleError>), DataError> {
    let Row { row, mut sample, files } = row?;
    let Some((source, files)) = files else { return Ok((row, sample, None)) };
    match files.read(&source).await {
        Ok(value) => {
            sample.value = Some(value);
            Ok((row, sample, None))
        }
        Err(failed) => Ok((row, sample, Some(failed))),
    }
}

fn wanted(input: &InputSpec) -> (&'static str, &'static [ColumnKind]) {
    match input {
        InputSpec::Auto => (
            "files (binary, or a struct of bytes and path), lists of images, text, or lists of numbers",
            &[ColumnKind::Files, ColumnKind::Clips, ColumnKind::Text, ColumnKind::Features],
        ),
        InputSpec::Image { frames: 1, .. } => {
            ("images (binary, or a struct of bytes and path) or lists of them", &[ColumnKind::Files, ColumnKind::Clips])
        }
        InputSpec::Image { .. } => ("lists of images, which `frames` requires", &[ColumnKind::Clips]),
        InputSpec::Audio { .. } => ("audio (binary, or a struct of bytes and path)", &[ColumnKind::Files]),
        InputSpec::Text { .. } => ("text", &[ColumnKind::Text]),
        InputSpec::Features { .. } => ("lists of numbers", &[ColumnKind::Features]),
    }
}

/// Checks that an id can pair samples and is short enough for the coordinator.
fn checked_id(id: Option<String>) -> Result<String, SampleError> {
    let Some(id) = id else {
        return Err(SampleError::new(
            "the id is null",
            "give every row an id, or leave `data: {id: …}` out to number the rows",
        ));
    };
    if id.len() <= SAMPLE_ID_LIMIT {
        return Ok(id);
    }
    Err(SampleError::new(
        format!("the id is {} bytes long, more than the limit of {SAMPLE_ID_LIMIT}", id.len()),
        "give it a shorter one, the same in every modality, or leave `data: {id: …}` out to number the rows",
    ))
}
