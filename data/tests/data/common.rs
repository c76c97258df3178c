//! Support for the tests of data: specifications and Parquet files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use antiphon_core::spec::{
    Classes, DataSpec, EncoderSpec, InputSpec, LabelSpec, LearningRateSchedule, ModalitySpec, OptimizerRule,
    OptimizerSpec, Precision, TransferSpec, ValidationSource, WorkerRange,
};
use arrow_array::builder::{ArrayBuilder, BinaryBuilder, Float32Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

pub(crate) fn labels(classes: u32) -> LabelSpec {
    LabelSpec { column: "label".to_owned(), classes: Classes::Count(classes) }
}

pub(crate) fn modality(train: String, column: &str, input: InputSpec) -> ModalitySpec {
    let data = DataSpec::Parquet {
        train: vec![train],
        validation: ValidationSource::Fraction(0.0),
        test: Vec::new(),
        column: column.to_owned(),
        id: Some("id".to_owned()),
    };
    ModalitySpec {
        name: "m".try_into().expect("a name"),
        data,
        input,
        encoder: EncoderSpec::Auto,
        transfer: TransferSpec::default(),
        precision: Precision::F32,
        optimizer: OptimizerSpec {
            rule: OptimizerRule::Sgd { momentum: 0.9, weight_decay: 0.0 },
            lr: 0.1,
            schedule: LearningRateSchedule::Constant { warmup: 0.0 },
            clip: None,
        },
        workers: WorkerRange { min: 1, max: 1 },
    }
}

/// Row groups of 10 rows, so that small files have several.
pub(crate) fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .expect("columns of one length");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
    let file = File::create(path).expect("the folder is writable");
    let mut writer =
        ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a schema that can be written");
    writer.write(&batch).expect("the folder is writable");
    writer.close().expect("the folder is writable");
}

pub(crate) fn ids<'a>(ids: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(ids))
}

pub(crate) fn numbered(rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("s{:04}", (i * 7919) % 10_000))))
}

pub(crate) fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub(crate) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub(crate) fn lists(rows: &[Option<Vec<f32>>]) -> ArrayRef {
    let mut builder = ListBuilder::new(Float32Builder::new());
    for row in rows {
        match row {
            Some(numbers) => builder.append_value(numbers.iter().copied().map(Some)),
            None => builder.append_null(),
        }
    }
    Arc::new(builder.finish())
}

fn file_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

/// A column of struct{bytes,path}, as in Hugging Face datasets.
pub(crate) fn files(rows: &[Option<&[u8]>]) -> ArrayRef {
    let mut bytes = BinaryBuilder::new();
    rows.iter().for_each(|row| bytes.append_option(*row));
    let paths = StringArray::from_iter(rows.iter().map(|_| None::<&str>));
    let nulls = rows.iter().map(Option::is_some).collect::<Vec<_>>().into();
    Arc::new(StructArray::new(file_fields(), vec![Arc::new(bytes.finish()), Arc::new(paths)], Some(nulls)))
}

/// A column of lists of that struct, as in Hugging Face's `Sequence(Image())`.
pub(crate) fn clips(rows: &[Option<Vec<Option<&[u8]>>>]) -> ArrayRef {
    let fields: Vec<Box<dyn ArrayBuilder>> = vec![Box::new(BinaryBuilder::new()), Box::new(StringBuilder::new())];
    let mut builder = ListBuilder::new(StructBuilder::new(file_fields(), fields));
    for row in rows {
        for frame in row.iter().flatten() {
            let frames = builder.values();
            frames.field_builder::<BinaryBuilder>(0).expect("bytes").append_option(*frame);
            frames.field_builder::<StringBuilder>(1).expect("path").append_null();
            frames.append(frame.is_some());
        }
        builder.append(row.is_some());
    }
    Arc::new(builder.finish())
}

/// A 16-bit mono WAV of a tone.
pub(crate) fn wav(rate: u32, samples: u32, hertz: f64) -> Vec<u8> {
    let size = samples * 2;
    let mut bytes = [b"RIFF".as_slice(), &(36 + size).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    bytes.extend([1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat());
    bytes.extend([rate.to_le_bytes(), (rate * 2).to_le_bytes()].concat());
    bytes.extend([2_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
    bytes.extend([b"data".as_slice(), &size.to_le_bytes()].concat());
    let sample = |i: u32| (8000.0 * (std::f64::consts::TAU * hertz * f64::from(i) / f64::from(rate)).sin()) as i16;
    bytes.extend((0..samples).flat_map(|i| sample(i).to_le_bytes()));
    bytes
}

/// A grey PNG with content from `seed`.
pub(crate) fn png(height: u32, width: u32, seed: u32) -> Vec<u8> {
    let image = image::GrayImage::from_fn(width, height, |x, y| image::Luma([(x * 31 + y * 17 + seed * 13) as u8]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("memory is writable");
    bytes.into_inner()
}
