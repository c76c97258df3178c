//! `antiphon eval CHECKPOINT`: the accuracy of a checkpoint on a split.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use antiphon_core::ids::{ModalityName, Turn};
use antiphon_core::metrics::{ConfusionCell, EvaluationReport, Evaluator, RuleName};
use antiphon_core::spec::Classes;
use anyhow::Context as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::damage::with_undamaged;
use crate::context::Context;
use crate::exit::Exit;
use crate::follow::evaluation_table;
use crate::output::{self, Format};
use crate::predictor::{Labels, Predictor, Source, exit_of, open};
use crate::progress::{Progress, until_interrupted};

/// Measure the accuracy of a checkpoint
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon eval antiphon-runs/JOB
  antiphon eval antiphon-runs/JOB/checkpoints/00000300 --drop audio
  antiphon eval s3://runs/jobs/JOB --data 'new/*.parquet' --confusion
  antiphon eval antiphon-runs/JOB --fusion tuned --format json

The folder of a run stands for its newest checkpoint. Without --data and --split, the job's test split is read. The rule of --fusion, \
or else of the job, is marked *. Samples without any of the modalities do not count.")]
pub struct EvalArgs {
    /// The checkpoint and its data
    #[command(flatten)]
    pub source: Source,

    /// Print the confusion matrix; JSON output always includes it
    #[arg(long)]
    pub confusion: bool,
}

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Evaluation<'a> {
    event: &'static str,
    checkpoint: String,
    turn: Turn,
    /// The rule of `--fusion`, or else the job's.
    fusion: RuleName,
    dropped: Vec<ModalityName>,
    #[serde(flatten)]
    report: &'a EvaluationReport,
}

/// Runs the command.
///
/// # Errors
/// A checkpoint that is missing or damaged, options that do not fit it, data that cannot be read.
pub async fn run(args: EvalArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    let progress = Progress::new();
    let shown = progress.clone();
    let checkpoint = args.source.checkpoint.clone();
    let done = until_interrupted(
        open(args.source, Labels::Required, &context.encoders, &progress),
        move |predictor, cancelled| {
            let report = evaluate(&predictor, &shown, cancelled)?;
            Ok(report.map(|report| (predictor, report)))
        },
    );
    let done = done.await;
    progress.clear();
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            let evaluate = |url: &str| format!("evaluate it with `{} eval {}`", output::program(), output::quoted(url));
            return Err(with_undamaged(error, &checkpoint, &context.stores, evaluate).await);
        }
    };
    let Some((predictor, report)) = done else { return Ok(Exit::Interrupted) };
    match format {
        Format::Json => output::json(&Evaluation {
            event: "evaluation",
            checkpoint: predictor.checkpoint().url(),
            turn: predictor.checkpoint().manifest().turn,
            fusion: RuleName::from(predictor.fusion()),
            dropped: predictor.dropped(),
            report: &report,
        })?,
        Format::Text => print(&predictor, &report, args.confusion)?,
    }
    Ok(Exit::Success)
}

/// Evaluates the split. None if it was cancelled.
fn evaluate(
    predictor: &Predictor,
    progress: &Progress,
    cancelled: &CancellationToken,
) -> anyhow::Result<Option<EvaluationReport>> {
    let (all, dropped) = (predictor.modalities(), predictor.dropped());
    let included: Vec<bool> = all.iter().map(|name| !dropped.contains(name)).collect();
    let names: Vec<ModalityName> = all.iter().filter(|name| !dropped.contains(name)).cloned().collect();
    let classes = predictor.spec().labels.classes.count();
    let tuned: Option<&BTreeMap<ModalityName, f64>> = predictor.checkpoint().manifest().fusion_weights.as_ref();
    let mut evaluator = Evaluator::new(predictor.split(), &names, classes, predictor.fusion(), tuned);
    progress.begin("evaluating", predictor.rows());
    let mut samples = predictor.samples();
    while let Some(sample) = samples.next() {
        if cancelled.is_cancelled() {
            return Ok(None);
        }
        let sample = sample.map_err(exit_of)?;
        let logits = sample.logits.iter().zip(&included).filter(|(_, included)| **included);
        let logits: Vec<Option<&[f32]>> = logits.map(|(logits, _)| logits.as_deref()).collect();
        let label = sample.label.with_context(|| format!("sample `{}` has no label", sample.id))?;
        evaluator.push(label, &logits).with_context(|| format!("sample `{}`", sample.id))?;
        progress.at(samples.rows());
    }
    Ok(Some(evaluator.finish()))
}

fn print(predictor: &Predictor, report: &EvaluationReport, confusion: bool) -> anyhow::Result<()> {
    let headline = RuleName::from(predictor.fusion());
    output::line(&format!("{}\n", predictor.checkpoint().url()))?;
    output::line(evaluation_table(report, headline).trim_end())?;
    let dropped: Vec<String> = predictor.dropped().iter().map(ToString::to_string).collect();
    if !dropped.is_empty() {
        output::line(&format!("  without {}", dropped.join(", ")))?;
    }
    if confusion {
        let cells = report.headline(predictor.fusion()).map_or(&[][..], |scores| &scores.confusion);
        output::line(&format!("\n{}", confusion_text(cells, &predictor.spec().labels.classes).trim_end()))?;
    }
    Ok(())
}

/// The largest number of classes for which the matrix is printed. With more, the most frequent confusions are listed.
const WIDEST: usize = 16;
/// The largest number of confusions that are listed.
const LISTED: usize = 30;

/// The confusion matrix as text, with a row per class and a column per prediction.
fn confusion_text(cells: &[ConfusionCell], classes: &Classes) -> String {
    if cells.is_empty() {
        return "no confusion matrix: the split has no samples, or the weights were tuned on it\n".to_owned();
    }
    if classes.count() > WIDEST { confusion_list(cells, classes) } else { confusion_matrix(cells, classes) }
}

fn confusion_matrix(cells: &[ConfusionCell], classes: &Classes) -> String {
    let count = |label: u32, answer: u32| {
        cells.iter().find(|cell| (cell.label, cell.answer) == (label, answer)).map_or(0, |cell| cell.count)
    };
    let names: Vec<String> = (0..classes.count() as u32).map(|class| class_name(classes, class)).collect();
    let widest = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let largest = cells.iter().map(|cell| cell.count).max().unwrap_or(0).to_string();
    let (first, width) = (widest(&names), widest(&names).max(largest.len()));
    let row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:>width$}")).collect();
        format!("  {name:<first$}{cells}\n")
    };
    let mut text = format!("class (rows) and prediction (columns)\n{}", row("", names.clone()));
    for (label, name) in names.iter().enumerate() {
        text += &row(name, (0..names.len()).map(|answer| count(label as u32, answer as u32).to_string()).collect());
    }
    text
}

fn confusion_list(cells: &[ConfusionCell], classes: &Classes) -> String {
    let mut wrong: Vec<&ConfusionCell> = cells.iter().filter(|cell| cell.label != cell.answer).collect();
    wrong.sort_by_key(|cell| (std::cmp::Reverse(cell.count), cell.label, cell.answer));
    let mut text = "most frequent confusions: class, prediction, samples\n".to_owned();
    for cell in wrong.iter().take(LISTED) {
        let [label, answer] = [cell.label, cell.answer].map(|class| class_name(classes, class));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {label} → {answer}  {}", cell.count);
    }
    text
}

fn class_name(classes: &Classes, class: u32) -> String {
    match classes {
        Classes::Names(names) => names.get(class as usize).cloned().unwrap_or_else(|| class.to_string()),
        Classes::Count(_) => class.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(cells: &[(u32, u32, u64)]) -> Vec<ConfusionCell> {
        cells.iter().map(|cell| ConfusionCell::from(*cell)).collect()
    }

    #[test]
    fn a_confusion_matrix_names_classes_and_fits_its_columns() {
        let classes = Classes::Names(vec!["a".to_owned(), "bee".to_owned()]);
        let text = confusion_text(&cells(&[(0, 0, 7), (0, 1, 1200), (1, 1, 3)]), &classes);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            ["class (rows) and prediction (columns)", "          a   bee", "  a       7  1200", "  bee     0     3"]
        );
    }

    #[test]
    fn many_classes_are_listed_by_frequent_confusions() {
        let text = confusion_text(&cells(&[(0, 0, 9), (3, 4, 1), (5, 6, 2)]), &Classes::Count(40));
        assert_eq!(text, "most frequent confusions: class, prediction, samples\n  5 → 6  2\n  3 → 4  1\n");
    }
}
