//! The job specification: the contents of a job file and their meaning.
//!
//! ```text
//! text ── document ──▶ tree ── overrides, variables ──▶ tree ── read, by the table in `fields` ──▶ JobSpec
//!                                                                        └─▶ explanation of every field
//! JobSpec ── canonical ──▶ JSON in the same spelling, every default written out
//! ```
//!
//! Invariants: all errors are reported at once, each with its location; a [`JobSpec`] that came out of
//! [`parse`] keeps every rule of the table; reading what [`JobSpec::to_json`] wrote gives the same job. Nothing here
//! opens a file or reads the environment: text and variables are arguments. Workers find out whether the data exist and
//! fit.

mod canonical;
mod document;
mod error;
mod explain;
mod field;
mod fields;
mod json;
mod model;
mod overrides;
mod read;
mod reader;
mod reference;
mod scalar;
mod spelling;
mod suggest;
#[cfg(test)]
mod tests;
mod variables;

pub use error::{Location, SpecError, SpecErrors};
pub use explain::{FieldReport, explain_text};
pub use json::Json;
pub use model::*;
pub use overrides::Override;
pub use reader::KnownEncoders;
pub use reference::{CHANGEABLE_ON_RESUME, FieldReference, SectionReference, reference};

use document::{Node, Value};
use field::{Field, Kind};
use reader::{Log, Section};

/// Reads a job file, in YAML or JSON.
///
/// `file` is its name in messages. `overrides` are applied in order after the file was read. `variable` returns the
/// value of `${NAME}`, or None if the variable is not set.
///
/// # Errors
/// All errors, in the order of the file.
pub fn parse(
    text: &str,
    file: &str,
    overrides: &[Override],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<JobSpec, SpecErrors> {
    parse_and_explain(text, file, overrides, variable).map(|(spec, _)| spec)
}

/// As [`parse`], but with any encoder name: for a program that does not build the encoder.
///
/// # Errors
/// As [`parse`].
pub fn parse_any(text: &str, file: &str) -> Result<JobSpec, SpecErrors> {
    parse_knowing(text, file, &[], &|_| None, KnownEncoders::Any).map(|(spec, _)| spec)
}

/// As [`parse`], with the explanation of every field of the job, in the order of the table.
///
/// # Errors
/// As [`parse`].
pub fn parse_and_explain(
    text: &str,
    file: &str,
    overrides: &[Override],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(JobSpec, Vec<FieldReport>), SpecErrors> {
    parse_knowing(text, file, overrides, variable, KnownEncoders::default())
}

/// As [`parse_and_explain`], for a job that may name these encoders besides the built-in ones.
///
/// # Errors
/// As [`parse`].
pub fn parse_knowing(
    text: &str,
    file: &str,
    overrides: &[Override],
    variable: &dyn Fn(&str) -> Option<String>,
    encoders: KnownEncoders,
) -> Result<(JobSpec, Vec<FieldReport>), SpecErrors> {
    let mut log = Log { encoders, ..Log::default() };
    let spec = match document::load(text) {
        Ok(root) => read_document(&mut log, root, overrides, variable),
        Err(error) => {
            log.errors.push(error);
            None
        }
    };
    match spec {
        Some(spec) if log.errors.is_empty() => Ok((spec, log.fields)),
        _ => Err(SpecErrors::new(file, log.errors)),
    }
}

static JOB: Field = Field::new("", Kind::Section, "name: my-job", "a job");

fn read_document(
    log: &mut Log,
    root: Option<Node>,
    overrides: &[Override],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Option<JobSpec> {
    let mut root = root.unwrap_or_else(|| Node::new(Location::START, Value::Map(Vec::new())));
    read::names_as_keys(&mut root, &mut log.errors);
    for (index, change) in overrides.iter().enumerate() {
        if let Err(error) = change.apply(index, &mut root) {
            log.errors.push(error);
        }
        read::names_as_keys(&mut root, &mut log.errors);
    }
    root.assign_paths("", &mut log.errors);
    variables::Variables { lookup: variable, brought: 0 }.expand(&mut root, &mut log.errors);
    let section = Section::new(log, root, String::new(), &JOB)?;
    read::job(section)
}
