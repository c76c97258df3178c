//! Every field of a job with its value and what it means.

use std::fmt::Write as _;

use super::error::{Location, shorten};
use super::json::Json;

/// One field of a job as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldReport {
    /// The full path of the key.
    pub key: String,
    /// The value that counts.
    pub value: Json,
    /// Where it was given; none for a default.
    pub given: Option<Location>,
    /// What the number counts; empty for what has no unit.
    pub unit: &'static str,
    /// The values that the field takes.
    pub range: String,
    /// What it is for.
    pub meaning: &'static str,
    /// A value, as it would be written.
    pub example: &'static str,
}

/// The fields of a job for people: `key: value unit`, then where the value is from, what it means and what it may be.
/// `file` is what the text calls the job file.
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
