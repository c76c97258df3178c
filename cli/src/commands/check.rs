//! `antiphon check JOB.yaml`: is this a job, and what does it come to?

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use antiphon_core::spec::{FieldReport, JobSpec, Override, Place, SpecError, SpecErrors, explain_text};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::job_file::{self, JobFileError};
use crate::output::Format;

/// Check a job file without running it.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The job file, YAML or JSON; `-` is standard input.
    pub job: PathBuf,
    /// Set one field, as in `--set schedule.epochs=3`; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,
    /// Print every field with its value, unit, range and meaning.
    #[arg(long)]
    pub explain: bool,
}

/// Checks the job and says what was found: to `out` when it is a job, or in JSON; to `err` otherwise.
///
/// # Errors
/// `out` or `err` is closed.
pub fn run(args: &CheckArgs, format: Format, out: &mut impl Write, err: &mut impl Write) -> io::Result<Exit> {
    match job_file::load(&args.job, &args.set) {
        Ok((spec, fields)) => {
            match format {
                Format::Json => writeln!(out, "{}", accepted(&spec, args.explain.then_some(&fields)))?,
                Format::Text if args.explain => {
                    out.write_all(explain_text(&fields, &file_name(&args.job)).as_bytes())?
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
    format!("{} is a job: {}, {} classes", spec.name, names.join(", "), spec.labels.classes.count())
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
        "given": field.given.as_ref().map(place),
        "unit": field.unit,
        "range": field.range,
        "meaning": field.meaning,
        "example": field.example,
    })
}

fn place(place: &Place) -> Value {
    match place {
        Place::File { line, column } => json!({"line": line, "column": column}),
        Place::Override { text, .. } => json!({"set": text}),
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
        "at": place(&error.place),
        "key": error.key,
        "value": error.value,
        "rule": error.rule,
        "message": format!("{}: {error}", all.locate(error)),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn check(text: &[u8], format: Format, set: &[&str], explain: bool) -> (Exit, String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let job = folder.path().join("job.yaml");
        fs::write(&job, text).expect("a job file");
        let set = set.iter().map(|text| Override::from(*text)).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run(&CheckArgs { job, set, explain }, format, &mut out, &mut err).expect("memory to write to");
        let text = |bytes| String::from_utf8(bytes).expect("text").replace(&folder.path().display().to_string(), "");
        (exit, text(out), text(err))
    }

    const JOB: &[u8] = b"name: digits\ndata: {train: a.parquet}\nmodalities: [audio, image]\nlabels: 10\n";

    #[test]
    fn a_job_is_summed_up() {
        let expected = (Exit::Success, "digits is a job: audio, image, 10 classes\n".to_owned(), String::new());
        assert_eq!(check(JOB, Format::Text, &[], false), expected);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let (exit, out, err) = check(JOB, Format::Text, &["schedule.batch=0"], false);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
        let rule = "`0` is not a whole number from 1 to 1000000";
        assert_eq!(err, format!("--set schedule.batch=0: schedule.batch: {rule}\n"));
        let (exit, out, _) = check(JOB, Format::Json, &["schedule.batch=0"], false);
        let object: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((exit, &object["errors"][0]["key"]), (Exit::Usage, &json!("schedule.batch")));
    }

    #[test]
    fn bytes_that_are_no_text_and_files_that_are_not_there() {
        let (exit, _, err) = check(b"name: \xff", Format::Text, &[], false);
        let message = "/job.yaml: not UTF-8 from byte 6 on; save the job file as UTF-8\n";
        assert_eq!((exit, err.as_str()), (Exit::Usage, message));
        assert!(matches!(job_file::load(Path::new("/no/such/job.yaml"), &[]), Err(JobFileError::Unreadable { .. })));
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
