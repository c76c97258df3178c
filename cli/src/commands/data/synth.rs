//! `antiphon data synth KIND DIR`: the generated data sets as files.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use antiphon_core::ids::Split;
use antiphon_core::spec::{SynthKind, SynthSamples};
use antiphon_data::synth::write::{WriteError, WriteOptions, WrittenFile, write};
use antiphon_data::synth::{CLASSES, Generator};
use anyhow::{Context as _, bail};
use serde::Serialize;

use super::units::{counted, size};
use crate::exit::{Exit, OrExit as _};
use crate::output::{self, Format};
use crate::progress::{Progress, until_interrupted};

/// Generate a data set as Parquet files
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon data synth spoken-digits digits --missing 10% --job digits.yaml
  antiphon data synth features vectors --train 1000000 --rows-per-shard 250000
  antiphon data inspect 'digits/*.parquet'
  antiphon run digits.yaml

The job trains on the files for five epochs. Without --job it is printed. If DIR is a relative path, so are the paths in the job: run \
the job from the same folder.

The rows are those of a job with `data: {source: synth}` and the same kind, samples, missing share and seed. Files have the format of \
Hugging Face datasets. Memory use does not grow with the number of rows.")]
pub struct SynthArgs {
    /// Kind of data set
    #[arg(value_enum)]
    pub kind: Kind,

    /// Folder to write to; it is created if it does not exist
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,

    /// Rows of the train split
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MOST_ROWS))]
    pub train: u64,

    /// Rows of the validation split; 0 for none
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MOST_ROWS))]
    pub validation: u64,

    /// Rows of the test split; 0 for none
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MOST_ROWS))]
    pub test: u64,

    /// Write a job that trains on the data set to this file, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub job: Option<PathBuf>,

    /// Share of missing values in each column, as in `10%` or `0.1`; every row has at least one value
    #[arg(long, default_value = "0", value_name = "SHARE", value_parser = share)]
    pub missing: f64,

    /// Seed of the generator
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,

    /// Rows per file; splits with more rows become several files, such as train-00000-of-00003.parquet
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rows_per_shard: Option<u64>,

    /// Replace the data set in the folder, and the file of --job
    #[arg(long)]
    pub force: bool,
}

/// The same limit as in job files.
const MOST_ROWS: u64 = 1_000_000_000;

/// The data sets that can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Digits written, spoken and described: columns image, audio, text
    SpokenDigits,
    /// Two feature vectors per row: columns a, b
    Features,
}

impl From<Kind> for SynthKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::SpokenDigits => Self::SpokenDigits,
            Kind::Features => Self::Features,
        }
    }
}

/// Parses `10%` or `0.1`, as in job files.
fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) if !percent.contains(['e', 'E']) => format!("{}e-2", percent.trim_end()).parse(),
        _ => text.parse::<f64>(),
    };
    let share = number.ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or("a share is from 0 to below 1, or from 0% to below 100%, as in `0.1` or `10%`".to_owned())
}

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Generated<'a> {
    event: &'static str,
    kind: &'static str,
    seed: u64,
    missing: f64,
    files: &'a [WrittenFile],
    /// A job file that trains on these files.
    job: String,
}

/// Runs the command.
///
/// # Errors
/// Invalid options, a data set or job file that already exists, or a folder that is not writable.
pub(super) async fn run(args: SynthArgs, format: Format) -> anyhow::Result<Exit> {
    let kind = SynthKind::from(args.kind);
    let samples = SynthSamples { train: args.train, validation: args.validation, test: args.test };
    let generator = Generator::new(kind, args.seed, samples, args.missing).context("--missing").or_exit(Exit::Usage)?;
    if let Some(file) = &args.job {
        check_job_file(file, &args.folder, args.force).or_exit(Exit::Usage)?;
    }
    let options = WriteOptions { rows_per_shard: args.rows_per_shard, overwrite: args.force };
    let (progress, folder) = (Progress::new(), args.folder.clone());
    let shown = progress.clone();
    let ready = std::future::ready(Ok(generator));
    let written = until_interrupted(ready, move |generator, cancelled| {
        shown.begin("generating", samples.train + samples.validation + samples.test);
        let written = write(&generator, &folder, options, |rows| {
            shown.at(rows);
            if cancelled.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let exit = if matches!(written, Err(WriteError::Exists { .. })) { Exit::Usage } else { Exit::Failed };
        written.or_exit(exit)
    });
    let written = written.await;
    progress.clear();
    let Some(files) = written? else { return Ok(Exit::Interrupted) };
    let job = job(kind, &args.folder, &files, args.rows_per_shard.is_some());
    if let Some(file) = &args.job {
        std::fs::write(file, &job).with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    match format {
        Format::Json => {
            let (kind, seed, missing) = (kind.name(), args.seed, args.missing);
            output::json(&Generated { event: "generated", kind, seed, missing, files: &files, job })?;
        }
        Format::Text => output::line(told(&args.folder, &files, (&job, args.job.as_deref())).trim_end())?,
    }
    Ok(Exit::Success)
}

/// Checks, before data are generated, that the job can be written to this file. `overwrite` allows an existing file.
fn check_job_file(file: &Path, created: &Path, overwrite: bool) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if file.is_dir() {
        bail!("`{}` is a folder; name a file in it with --job", file.display());
    }
    if !overwrite && file.exists() {
        bail!("`{}` already exists; --force overwrites it", file.display());
    }
    if let Some(folder) = folder.filter(|folder| !folder.is_dir() && *folder != created) {
        bail!("there is no folder `{}` to write the job file to; create it first", folder.display());
    }
    Ok(())
}

/// A job file that trains on these files.
fn job(kind: SynthKind, folder: &Path, files: &[WrittenFile], shards: bool) -> String {
    let mut text = format!("name: {}\ndata:\n", kind.name());
    for split in [Split::Train, Split::Validation, Split::Test] {
        let name = if shards { format!("{split}-*.parquet") } else { format!("{split}.parquet") };
        let value = match files.iter().any(|file| file.split == split) {
            true => quoted(&folder.join(name).display().to_string()),
            false if split == Split::Validation => "0".to_owned(),
            false => continue,
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {split}: {value}");
    }
    let _ = writeln!(text, "  id: id\nmodalities: [{}]\nlabels: {CLASSES}", kind.columns().join(", "));
    text += match kind {
        SynthKind::SpokenDigits => "optimizer: {kind: adamw, lr: 2e-3}\n",
        SynthKind::Features => "optimizer: {lr: 0.05}\n",
    };
    text + "schedule: {epochs: 5}\n"
}

/// Quotes a path for YAML, with `$` escaped, so that no variable is expanded. JSON strings are valid YAML.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    let word = path.chars().all(plain) && path.starts_with(|c: char| c.is_alphabetic() || c == '/' || c == '.');
    if word { path.to_owned() } else { serde_json::Value::from(path.replace("${", "$${")).to_string() }
}

/// The output as text. `job` is the job, with the file that it was written to, if any.
fn told(folder: &Path, files: &[WrittenFile], (job, job_file): (&str, Option<&Path>)) -> String {
    const SHOWN: usize = 12;
    let mut text = String::new();
    let name = |file: &WrittenFile| file.path.display().to_string();
    let width = files.iter().take(SHOWN).map(|file| name(file).chars().count()).max().unwrap_or(0);
    // Writing to a String cannot fail.
    for file in files.iter().take(SHOWN) {
        let _ = writeln!(text, "  {:<width$}  {:>9} rows  {:>9}", name(file), file.rows, size(file.bytes));
    }
    if files.len() > SHOWN {
        let _ = writeln!(text, "  and {}", counted((files.len() - SHOWN) as u64, "more file"));
    }
    let program = output::program();
    match job_file {
        Some(file) => {
            let (shown, typed) = (file.display(), output::quoted(&file.display().to_string()));
            let _ = writeln!(text, "\nThe job {shown} trains on them: {program} run {typed}");
        }
        None => {
            let _ = writeln!(text, "\nA job that trains on them, to save as job.yaml (--job job.yaml writes it):\n");
            for line in job.lines() {
                let _ = writeln!(text, "    {line}");
            }
            let _ = writeln!(text, "\nThen: {program} run job.yaml");
        }
    }
    let pattern = output::quoted(&folder.join("*.parquet").display().to_string());
    let _ = writeln!(text, "To inspect the files: {program} data inspect {pattern}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_in_job_files() {
        assert_eq!(
            [share("10%"), share("0.1"), share("0"), share("33.5 %")].map(Result::ok),
            [Some(0.1), Some(0.1), Some(0.0), Some(0.335)]
        );
        for bad in ["100%", "-1%", "x", "", "%", "nan", "1e0%"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
