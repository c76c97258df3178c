//! Generated rows as Arrow tables, with the types of Hugging Face's `datasets`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use antiphon_core::ids::Split;
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder};
use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::super::digits;
use super::super::{CLASSES, Column, ColumnKind, Generator, RawRow, RawValue};

/// The key of a schema's metadata under which `datasets` stores its own types.
const METADATA: &str = "huggingface";

/// `id`, `label` and the columns of the generator, with their Hugging Face types as metadata. `datasets` reads its
/// types from there only for nullable columns.
pub(super) fn schema(generator: &Generator) -> SchemaRef {
    let mut fields = vec![Field::new("id", DataType::Utf8, true), Field::new("label", DataType::Int64, true)];
    fields.extend(generator.columns().iter().map(|column| Field::new(column.name(), data_type(*column), true)));
    let metadata = HashMap::from([(METADATA.to_owned(), features(generator).to_string())]);
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// The `datasets` types of the columns.
fn features(generator: &Generator) -> Value {
    let value = |dtype: &str| json!({"dtype": dtype, "_type": "Value"});
    let classes: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
    let mut features = Map::new();
    features.insert("id".to_owned(), value("string"));
    features.insert("label".to_owned(), json!({"names": classes, "_type": "ClassLabel"}));
    for column in generator.columns() {
        let feature = match column.kind() {
            ColumnKind::Image => json!({"_type": "Image"}),
            ColumnKind::Audio => json!({"sampling_rate": digits::voice::RATE as u32, "_type": "Audio"}),
            ColumnKind::Text => value("string"),
            ColumnKind::Features(width) => {
                json!({"feature": value("float32"), "length": width, "_type": "Sequence"})
            }
        };
        features.insert(column.name().to_owned(), feature);
    }
    json!({"info": {"features": features}})
}

/// A range of rows of a split as a table with this [`schema`]. All of rayon's threads generate rows, which stay in
/// order.
pub(super) fn batch(
    generator: &Generator,
    schema: &SchemaRef,
    split: Split,
    rows: Range<u64>,
) -> Result<RecordBatch, ArrowError> {
    let ids: Vec<String> = rows.clone().map(|index| generator.id(split, index)).collect();
    let labels = rows.clone().map(|index| i64::from(generator.label(split, index)));
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from_iter_values(&ids)), Arc::new(labels.collect::<Int64Array>())];
    for column in generator.columns() {
        let made: Vec<RawRow> = rows.clone().into_par_iter().map(|index| generator.row(split, index, column)).collect();
        columns.push(array(column, &made)?);
    }
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn array(column: Column, rows: &[RawRow]) -> Result<ArrayRef, ArrowError> {
    Ok(match column.kind() {
        ColumnKind::Image => files(rows, "png")?,
        ColumnKind::Audio => files(rows, "wav")?,
        ColumnKind::Text => Arc::new(StringArray::from_iter(rows.iter().map(|row| match &row.value {
            Some(RawValue::Text(text)) => Some(text.as_str()),
            _ => None,
        }))),
        ColumnKind::Features(width) => vectors(rows, width),
    })
}

/// Structs of `bytes` and `path`.
fn files(rows: &[RawRow], extension: &str) -> Result<ArrayRef, ArrowError> {
    let bytes = rows.iter().map(|row| match &row.value {
        Some(RawValue::Bytes(bytes)) => Some(bytes.as_ref()),
        _ => None,
    });
    let bytes: BinaryArray = bytes.collect();
    let path: StringArray =
        rows.iter().map(|row| row.value.is_some().then(|| format!("{}.{extension}", row.id))).collect();
    let nulls = rows.iter().map(|row| row.value.is_some()).collect::<Vec<bool>>();
    let fields: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(path)];
    Ok(Arc::new(StructArray::try_new(file_fields(), fields, Some(nulls.into()))?))
}

fn vectors(rows: &[RawRow], width: u32) -> ArrayRef {
    let mut lists = FixedSizeListBuilder::new(Float32Builder::new(), width as i32);
    for row in rows {
        match &row.value {
            Some(RawValue::Features(numbers)) => lists.values().append_slice(numbers),
            _ => lists.values().append_nulls(width as usize),
        }
        lists.append(row.value.is_some());
    }
    Arc::new(lists.finish())
}

fn data_type(column: Column) -> DataType {
    match column.kind() {
        ColumnKind::Image | ColumnKind::Audio => DataType::Struct(file_fields()),
        ColumnKind::Text => DataType::Utf8,
        ColumnKind::Features(width) => {
            DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), width as i32)
        }
    }
}

fn file_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}
