//! Types of columns as Hugging Face's `datasets` names them.

use arrow_schema::{DataType, Field, Schema};
use serde_json::Value;

use super::super::column::ColumnKind;

/// The metadata that `datasets` wrote about a column, if there are any.
pub(super) fn declared(schema: &Schema, column: &str) -> Option<Value> {
    let metadata: Value = serde_json::from_str(schema.metadata().get("huggingface")?).ok()?;
    metadata.get("info")?.get("features")?.get(column).cloned()
}

/// The names of a declared column's classes, by number.
pub(super) fn class_names(declared: Option<&Value>) -> Vec<String> {
    let names = declared.and_then(|declared| declared.get("names")).and_then(Value::as_array);
    names.into_iter().flatten().map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
}

/// `Image()`, `ClassLabel(10 names)`, `Value("int64")` ... : as declared, or otherwise by the type and, for files, by
/// the first file.
pub(super) fn feature(field: &Field, declared: Option<&Value>, media: Option<&str>) -> String {
    let kind = declared.and_then(|declared| declared.get("_type")).and_then(Value::as_str);
    let items = declared.and_then(|declared| declared.get("feature").or_else(|| declared.get(0)));
    let of_items = items.and_then(|items| items.get("_type")).and_then(Value::as_str);
    match (kind, declared) {
        _ if of_items == Some("Image") => "Sequence(Image())".to_owned(),
        (Some("Image"), _) => "Image()".to_owned(),
        (Some("Audio"), Some(declared)) => match declared.get("sampling_rate").and_then(Value::as_u64) {
            Some(rate) => format!("Audio(sampling_rate={rate})"),
            None => "Audio()".to_owned(),
        },
        (Some("ClassLabel"), Some(_)) => format!("ClassLabel({} names)", class_names(declared).len()),
        _ if ColumnKind::of(field.data_type()) == Some(ColumnKind::Files) && media.is_some() => {
            format!("{}()", media.unwrap_or_default())
        }
        _ if ColumnKind::of(field.data_type()) == Some(ColumnKind::Clips) && media.is_some() => {
            format!("Sequence({}())", media.unwrap_or_default())
        }
        _ => value(field.data_type()),
    }
}

fn value(data_type: &DataType) -> String {
    match data_type {
        DataType::FixedSizeList(item, length) => format!("Sequence({}, length={length})", value(item.data_type())),
        DataType::List(item) | DataType::LargeList(item) => format!("Sequence({})", value(item.data_type())),
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|field| format!("{:?}: {}", field.name(), value(field.data_type())));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        DataType::Dictionary(_, values) => value(values),
        other => format!("Value({:?})", dtype(other)),
    }
}

fn dtype(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "string".to_owned(),
        DataType::LargeUtf8 => "large_string".to_owned(),
        DataType::Utf8View => "string_view".to_owned(),
        DataType::LargeBinary => "large_binary".to_owned(),
        DataType::BinaryView => "binary_view".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
