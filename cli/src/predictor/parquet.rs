//! Predictions as a Parquet file: flat columns, a row per sample.
//!
//! `id`, `label`, `prediction`, `probabilities` (a list of C numbers), `lambda_M` and `entropy_M` of each modality M,
//! and `label_class` and `prediction_class` where the job names its classes.

use std::io::Write;
use std::sync::Arc;

use antiphon_core::ids::ModalityName;
use antiphon_core::spec::Classes;
use arrow_array::builder::{FixedSizeListBuilder, Float64Builder};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::prediction::Prediction;

/// Number of rows that are passed to the writer at once.
const ROWS: usize = 1024;
/// Size in bytes at which a row group is written.
const GROUP_BYTES: usize = 16 << 20;

/// A writer of a Parquet file that takes predictions one by one.
pub(super) struct ParquetLines<W: Write + Send> {
    schema: SchemaRef,
    modalities: Vec<ModalityName>,
    classes: usize,
    named: bool,
    waiting: Vec<Prediction>,
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> ParquetLines<W> {
    pub(super) fn new(out: W, modalities: &[ModalityName], classes: &Classes) -> anyhow::Result<Self> {
        let named = matches!(classes, Classes::Names(_));
        let schema = schema(modalities, classes.count(), named);
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
        let (modalities, classes) = (modalities.to_vec(), classes.count());
        Ok(Self { schema, modalities, classes, named, waiting: Vec::new(), writer })
    }

    pub(super) fn write(&mut self, prediction: &Prediction) -> anyhow::Result<()> {
        self.waiting.push(prediction.clone());
        if self.waiting.len() >= ROWS { self.write_waiting() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.write_waiting()?;
        self.writer.close()?;
        Ok(())
    }

    fn write_waiting(&mut self) -> anyhow::Result<()> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), self.columns())?;
        self.waiting.clear();
        self.writer.write(&batch)?;
        if self.writer.in_progress_size() >= GROUP_BYTES {
            self.writer.flush()?;
        }
        Ok(())
    }

    /// The columns, in the order of the schema.
    fn columns(&self) -> Vec<ArrayRef> {
        let rows = || self.waiting.iter();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows().map(|row| &row.id))),
            Arc::new(UInt32Array::from_iter(rows().map(|row| row.label))),
            Arc::new(UInt32Array::from_iter_values(rows().map(|row| row.prediction))),
            self.probabilities(),
        ];
        for name in &self.modalities {
            let weighed = || rows().map(|row| row.modalities.get(name));
            let lambdas = weighed().map(|weighed| weighed.map_or(0.0, |weighed| weighed.lambda));
            let entropies = weighed().map(|weighed| weighed.and_then(|weighed| weighed.entropy));
            columns.push(Arc::new(Float64Array::from_iter_values(lambdas)));
            columns.push(Arc::new(Float64Array::from_iter(entropies)));
        }
        if self.named {
            columns.push(Arc::new(StringArray::from_iter(rows().map(|row| row.label_class.clone().flatten()))));
            columns.push(Arc::new(StringArray::from_iter(rows().map(|row| row.prediction_class.clone().flatten()))));
        }
        columns
    }

    fn probabilities(&self) -> ArrayRef {
        let mut lists = FixedSizeListBuilder::new(Float64Builder::new(), self.classes as i32).with_field(number());
        for row in &self.waiting {
            lists.values().append_slice(&row.probabilities);
            lists.append(true);
        }
        Arc::new(lists.finish())
    }
}

fn number() -> Field {
    Field::new("item", DataType::Float64, false)
}

fn schema(modalities: &[ModalityName], classes: usize, named: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("label", DataType::UInt32, true),
        Field::new("prediction", DataType::UInt32, false),
        Field::new("probabilities", DataType::FixedSizeList(Arc::new(number()), classes as i32), false),
    ];
    for name in modalities {
        fields.push(Field::new(format!("lambda_{name}"), DataType::Float64, false));
        fields.push(Field::new(format!("entropy_{name}"), DataType::Float64, true));
    }
    if named {
        fields.push(Field::new("label_class", DataType::Utf8, true));
        fields.push(Field::new("prediction_class", DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}
