//! `antiphon data inspect FILE…`: shows the contents of data files.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use antiphon_data::inspect::{
    ClassReport, FileReport, IdReport, InspectOptions, Inspection, LabelReport, NamedValue, SampleReport, TableReport,
    ValueReport, inspect,
};
use antiphon_process::Interrupts;
use serde::Serialize;

use super::picture;
use super::units::{counted, size};
use crate::exit::{Exit, OrExit as _};
use crate::output::{self, Format};
use crate::progress::Progress;

/// Show the schema, classes, missing values, ids and samples of Parquet files
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon data inspect mine.parquet
  antiphon data inspect 's3://data/clips/*.parquet' --label class --samples 1
  antiphon data inspect mine.parquet --format json

Files with the same columns are shown as one table. All rows are read.")]
pub struct InspectArgs {
    /// Paths or URLs, with `*` and `?` as wildcards
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,

    /// Column of the class [default: label]
    #[arg(long, value_name = "COLUMN")]
    pub label: Option<String>,

    /// Column of the sample id [default: id]
    #[arg(long, value_name = "COLUMN")]
    pub id: Option<String>,

    /// Number of samples to show
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub samples: usize,
}

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Inspected<'a> {
    event: &'static str,
    #[serde(flatten)]
    inspection: &'a Inspection,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read, or a named column does not exist.
pub(super) async fn run(args: InspectArgs, format: Format) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let options = InspectOptions { label: args.label, id: args.id, samples: args.samples };
    let progress = Progress::new();
    let (shown, mut started) = (progress.clone(), false);
    let mut count = move |rows: u64, all: u64| {
        if !started {
            shown.begin("reading", all);
            started = true;
        }
        shown.at(rows);
    };
    let stores = antiphon_worker::stores();
    let found = tokio::select! {
        found = inspect(&args.files, &stores, &options, &mut count) => Some(found),
        () = interrupts.next() => None,
    };
    progress.clear();
    let Some(found) = found else { return Ok(Exit::Interrupted) };
    let found = found.or_exit(Exit::Usage)?;
    match format {
        Format::Json => output::json(&Inspected { event: "inspected", inspection: &found })?,
        Format::Text => {
            let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let tables = found.tables.iter().map(|table| table_text(table, colours)).collect::<Vec<_>>();
            output::line(tables.join("\n\n").trim_end())?;
        }
    }
    Ok(Exit::Success)
}

// Writing to a String cannot fail, so the results of `writeln!` are dropped below.

fn table_text(table: &TableReport, colours: bool) -> String {
    let mut text = files_text(&table.files);
    text += &columns_text(table);
    if let Some(labels) = &table.labels {
        text += &labels_text(labels, table.rows);
    }
    if let Some(ids) = &table.ids {
        text += &ids_text(ids);
    }
    for sample in &table.samples {
        text += &sample_text(sample, colours);
    }
    text
}

/// The largest number of files that are listed.
const FILES: usize = 20;

fn files_text(files: &[FileReport]) -> String {
    let mut text = String::new();
    let line = |name: &str, width: usize, of: [u64; 3]| {
        let groups = counted(of[1], "row group");
        format!("{name:<width$}  {:>10}  {groups:>14}  {:>9}\n", counted(of[0], "row"), size(of[2]))
    };
    let numbers = |file: &FileReport| [file.rows, file.row_groups as u64, file.bytes];
    let total = format!("{} files", files.len());
    let names = files.iter().take(FILES).map(|file| file.file.as_str()).chain([total.as_str()]);
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
    for file in files.iter().take(FILES) {
        text += &line(&file.file, width, numbers(file));
    }
    if files.len() > FILES {
        let _ = writeln!(text, "…");
    }
    if files.len() > 1 {
        let sum = files.iter().map(numbers).fold([0; 3], |sum, of| std::array::from_fn(|i| sum[i] + of[i]));
        text += &line(&total, width, sum);
    }
    text
}

fn columns_text(table: &TableReport) -> String {
    let width = |of: fn(&(String, &str)) -> usize, rows: &[(String, &str)]| rows.iter().map(of).max().unwrap_or(0);
    let rows: Vec<(String, &str)> =
        table.columns.iter().map(|column| (escaped(&column.name), column.feature.as_str())).collect();
    let name = width(|row| row.0.chars().count(), &rows).max("column".len());
    let feature = width(|row| row.1.chars().count(), &rows).max("type".len());
    let mut text = format!("\n  {:<name$}  {:<feature$}  missing\n", "column", "type");
    for ((column, kind), report) in rows.iter().zip(&table.columns) {
        let share = percent(report.missing, table.rows);
        let _ = writeln!(text, "  {column:<name$}  {kind:<feature$}  {share:>7}  {}", report.missing);
    }
    text
}

/// The largest number of classes that are listed.
const CLASSES: usize = 40;
/// Length of the longest bar, in characters.
const BAR: u64 = 30;

fn labels_text(labels: &LabelReport, rows: u64) -> String {
    let mut text = format!("\n{}: {}\n", escaped(&labels.column), classes(labels.classes.len()));
    let name = |class: &ClassReport| match &class.name {
        Some(name) => format!("{} {}", class.label, escaped(name)),
        None => escaped(&class.label),
    };
    let shown = &labels.classes[..labels.classes.len().min(CLASSES)];
    let width = shown.iter().map(|class| name(class).chars().count()).max().unwrap_or(0);
    let most = labels.classes.iter().map(|class| class.rows).max().unwrap_or(1).max(1);
    for class in shown {
        let bar = "█".repeat((class.rows * BAR).div_ceil(most) as usize);
        let _ = writeln!(text, "  {:<width$}  {:>9}  {:>7}  {bar}", name(class), class.rows, percent(class.rows, rows));
    }
    if labels.classes.len() > CLASSES {
        let rest = &labels.classes[CLASSES..];
        let rows = rest.iter().map(|class| class.rows).sum::<u64>() + labels.others;
        let _ = writeln!(text, "  and {} more with {}", classes(rest.len()), counted(rows, "row"));
    }
    if labels.without > 0 {
        let _ = writeln!(text, "  {} without an integer or a string", counted(labels.without, "row"));
    }
    text
}

fn classes(n: usize) -> String {
    if n == 1 { "1 class".to_owned() } else { format!("{n} classes") }
}

fn ids_text(ids: &IdReport) -> String {
    let column = escaped(&ids.column);
    let mut text = match ids.duplicates {
        0 => format!("\n{column}: no id occurs twice\n"),
        n => format!(
            "\n{column}: {} with an id that an earlier row has, {} of them in the same file\n",
            counted(n, "row"),
            ids.within_files
        ),
    };
    for example in &ids.examples {
        let ((first, first_row), (second, row)) = (&example.first, &example.again);
        let _ = writeln!(text, "  {:?}: {second}, row {row}, and {first}, row {first_row}", example.id);
    }
    if ids.without > 0 {
        let _ = writeln!(text, "  {} without an id", counted(ids.without, "row"));
    }
    text
}

fn sample_text(sample: &SampleReport, colours: bool) -> String {
    let mut text = format!("\n{}, row {}\n", sample.file, sample.row);
    let width = sample.values.iter().map(|value| escaped(&value.column).chars().count()).max().unwrap_or(0);
    for NamedValue { column, value } in &sample.values {
        let _ = writeln!(text, "  {:<width$}  {}", escaped(column), value_text(value));
        if let ValueReport::Image { picture, .. } | ValueReport::Clip { picture, .. } = value {
            for line in picture::lines(picture, colours) {
                let _ = writeln!(text, "  {:<width$}  {line}", "");
            }
        }
    }
    text
}

fn value_text(value: &ValueReport) -> String {
    match value {
        ValueReport::Missing => "missing".to_owned(),
        ValueReport::Image { format, width, height, bytes, .. } => {
            format!("{format}, {width} × {height} pixels, {}", size(*bytes as u64))
        }
        ValueReport::Clip { frames, format, width, height, bytes, .. } => {
            let middle = format!("{format}, {width} × {height} pixels, {}", size(*bytes as u64));
            format!("{}, in the middle {middle}", counted(*frames as u64, "frame"))
        }
        ValueReport::Audio { format, rate, seconds, peak, bytes } => {
            format!("{format}, {rate} Hz, {seconds:.2} s, peak {peak:.2}, {}", size(*bytes as u64))
        }
        ValueReport::Text { text, characters } => {
            let shown = text.chars().count();
            let more = if *characters > shown { format!(" … {characters} characters") } else { String::new() };
            format!("{text:?}{more}")
        }
        ValueReport::Features { length, first } => {
            let numbers: Vec<String> = first.iter().map(|x| format!("{x:.4}")).collect();
            let more = if *length > first.len() { ", …" } else { "" };
            format!("{}: {}{more}", counted(*length as u64, "number"), numbers.join(", "))
        }
        ValueReport::Plain { value } => value.clone(),
        ValueReport::Unreadable { error } => format!("cannot be used: {error}"),
    }
}

/// Escapes control characters, which could move the cursor.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn percent(count: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * count as f64 / whole as f64) }
}
