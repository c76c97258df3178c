//! `antiphon check JOB.yaml`: validates a job file.

use std::io::{self, Write};
use std::path::Path;

use antiphon_core::spec::{FieldReport, JobSpec, Location, SpecError, SpecErrors, explain_text};
use serde_json::{Value, json};

use super::shared_args::JobArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::job_file::JobFileError;
use crate::output::Format;

/// Validate a job file without running it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon check job.yaml                         check this job file
  antiphon check job.yaml --explain               show and explain all fields
  antiphon check job.yaml --set schedule.batch=0  try a change

Exit codes: 0 the job is valid, 2 the job is invalid")]
pub struct CheckArgs {
    /// The job file
    #[command(flatten)]
    pub job: JobArgs,

    /// Print every field with its value, unit, range and meaning
    #[arg(long)]
    pub explain: bool,
}

/// Validates the job. Writes the result to `out`. As text, writes errors to `err`.
///
/// # Errors
/// `out` or `err` is closed.
pub fn run(args: &CheckArgs, context: &Context, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    let format = context.format;
    match args.job.explain(&context.encoders) {
        Ok((spec, fields)) => {
            match format {
                Format::Json => writeln!(out, "{}", accepted(&spec, args.explain.then_some(&fields)))?,
                Format::Text if args.explain => {
                    out.write_all(explain_text(&fields, &file_name(&args.job.job)).as_bytes())?
                }
                Format::Text => writeln!(out, "{}", summary(&spec))?,
            }
            Ok(Exit::Success)
        }
        Err(error) => {
            match format {
                Format::Json => writeln!(out, "{}", refused(&error))?,
                Format::Text => writeln!(err, "{error}")?,
            }
            Ok(Exit::Usage)
        }
    }
}

fn file_name(job: &Path) -> String {
    if job == Path::new("-") { "standard input".to_owned() } else { job.display().to_string() }
}

fn summary(spec: &JobSpec) -> String {
    let names: Vec<&str> = spec.modalities.iter().map(|modality| modality.name.as_str()).collect();
    format!("{} is a valid job: {}, {} classes", spec.name, names.join(", "), spec.labels.classes.count())
}

fn accepted(spec: &JobSpec, fields: Option<&Vec<FieldReport>>) -> Value {
    let mut object = json!({"event": "checked", "valid": true, "specification": spec});
    if let Some(fields) = fields {
        object["fields"] = fields.iter().map(explained).collect();
    }
    object
}

fn explained(field: &FieldReport) -> Value {
    json!({
        "key": field.key,
        "value": field.value,
        "given": field.given.as_ref().map(position),
        "unit": field.unit,
        "range": field.range,
        "meaning": field.meaning,
        "example": field.example,
    })
}

fn position(place: &Location) -> Value {
    match place {
        Location::File { line, column } => json!({"line": line, "column": column}),
        Location::Override { text, .. } => json!({"set": text}),
    }
}

fn refused(error: &JobFileError) -> Value {
    let errors: Vec<Value> = match error {
        JobFileError::NotAJob(all) => all.errors.iter().map(|error| described(all, error)).collect(),
        other => vec![json!({"message": other.to_string()})],
    };
    json!({"event": "checked", "valid": false, "errors": errors})
}

fn described(all: &SpecErrors, error: &SpecError) -> Value {
    json!({
        "at": position(&error.location),
        "key": error.key,
        "value": error.value,
        "rule": error.rule,
        "message": format!("{}: {error}", all.locate(error)),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use antiphon_core::spec::Override;

    use antiphon_model::custom::Encoders;
    use antiphon_store::storage::StoreOptions;

    use super::*;
    use crate::job_file;

    fn check(text: &[u8], format: Format, set: &[&str], explain: bool) -> (Exit, String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let job = folder.path().join("job.yaml");
        fs::write(&job, text).expect("a job file");
        let set = set.iter().map(|text| Override::from(*text)).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let context = Context { format, stores: StoreOptions::default(), encoders: Encoders::new() };
        let exit = run(&CheckArgs { job: JobArgs { job, set }, explain }, &context, &mut out, &mut err)
            .expect("memory to write to");
        let text = |bytes| String::from_utf8(bytes).expect("text").replace(&folder.path().display().to_string(), "");
        (exit, text(out), text(err))
    }

    const JOB: &[u8] = b"name: digits\ndata: {train: a.parquet}\nmodalities: [audio, image]\nlabels: 10\n";

    #[test]
    fn a_valid_job_is_summarised() {
        let expected = (Exit::Success, "digits is a valid job: audio, image, 10 classes\n".to_owned(), String::new());
        assert_eq!(check(JOB, Format::Text, &[], false), expected);
    }

    #[test]
    fn errors_name_their_position() {
        let (exit, out, err) = check(JOB, Format::Text, &["schedule.batch=0"], false);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
        let rule = "`0` is not a whole number from 1 to 1000000";
        assert_eq!(err, format!("--set schedule.batch=0: schedule.batch: {rule}\n"));
        let (exit, out, _) = check(JOB, Format::Json, &["schedule.batch=0"], false);
        let object: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((exit, &object["errors"][0]["key"]), (Exit::Usage, &json!("schedule.batch")));
    }

    #[test]
    fn files_that_are_missing_or_not_text_are_refused() {
        let (exit, _, err) = check(b"name: \xff", Format::Text, &[], false);
        let message = "/job.yaml: byte 6 is not valid UTF-8; save the job file as UTF-8\n";
        assert_eq!((exit, err.as_str()), (Exit::Usage, message));
        assert!(matches!(
            job_file::load(Path::new("/no/such/job.yaml"), &[], &Encoders::new()),
            Err(JobFileError::Unreadable { .. })
        ));
    }

    #[test]
    fn an_explanation_names_every_field() {
        let (_, text, _) = check(JOB, Format::Text, &[], true);
        assert!(text.contains("schedule.batch: 64 samples  (default)"), "{text}");
        let (_, line, _) = check(JOB, Format::Json, &[], true);
        let object: Value = serde_json::from_str(&line).expect("JSON");
        assert!(object["fields"].as_array().expect("a list").len() > 40);
        assert_eq!(line.lines().count(), 1);
    }
}
