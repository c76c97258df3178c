//! Every field of a job, with its value and its meaning.

use std::fmt::Write as _;

use super::error::{Location, shorten};
use super::json::Json;

/// One field of a job that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldReport {
    /// The full path of the key.
    pub key: String,
    /// The value that the job uses.
    pub value: Json,
    /// Where the job file or an override sets it. None for a default.
    pub given: Option<Location>,
    /// The unit, such as `epochs`. Empty if the field has none.
    pub unit: &'static str,
    /// The allowed values, as text.
    pub range: String,
    /// The purpose of the field.
    pub meaning: &'static str,
    /// An example value, as a job file writes it.
    pub example: &'static str,
}

/// The fields of a job as text: `key: value unit`, then the origin of the value, its meaning and the allowed values.
/// `file` is the name of the job file in the text.
#[must_use]
pub fn explain_text(fields: &[FieldReport], file: &str) -> String {
    let mut text = String::new();
    for field in fields {
        let unit = if field.unit.is_empty() { String::new() } else { format!(" {}", field.unit) };
        let origin = match &field.given {
            None => "default".to_owned(),
            Some(Location::File { line, .. }) => format!("{file}:{line}"),
            Some(Location::Override { .. }) => "--set".to_owned(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}: {}{unit}  ({origin})", field.key, shorten(&field.value.to_string()));
        let _ = writeln!(text, "    {}", field.meaning);
        let _ = writeln!(text, "    {}; for example `{}`", field.range, field.example);
    }
    text
}
