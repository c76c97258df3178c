//! `antiphon bench joint JOB.yaml`: the accuracy of each modality trained jointly, in turns, and alone.

use std::fmt::Write as _;

use antiphon_core::ids::{JobName, ModalityName, Split};
use antiphon_core::metrics::{EvaluationReport, ModalityScores, RuleName};
use antiphon_core::spec::JobSpec;
use antiphon_data::OpenOptions;
use antiphon_model::custom::Encoders;
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::in_turns;
use crate::commands::shared_args::JobArgs;
use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::joint::{self, Measured, Member, Opened, Training};
use crate::output::{self, Format};
use crate::predictor::exit_of;
use crate::progress::{Progress, until_interrupted};

/// Compare joint training, training in turns and training alone
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon bench joint examples/spoken-digits.yaml
  antiphon bench joint job.yaml --set schedule.epochs=20 --set seed=2
  antiphon bench joint job.yaml --skip-alone --format json

All columns use the encoders, seed, optimizers, batch size and epochs of the job:
  jointly    one linear head over the features of all modalities, one loss;
             every encoder steps with every batch of samples, paired by id. A
             modality is measured with its slice of the head.
  in turns   what `antiphon run` does with this job
  alone      each modality with its own head: what its encoder can reach

A modality is called starved if its accuracy is at least 5 points lower jointly than alone, and the split is large enough for the \
difference to be significant: once the other modalities explain the samples, its encoder receives little gradient. The last row is \
the joint head with all modalities; starvation does not necessarily lower it.

Figures are accuracies on the test split, or on the validation split if there is no test split. Nothing is written.")]
pub struct JointArgs {
    /// The job file
    #[command(flatten)]
    pub job: JobArgs,

    /// Do not train each modality alone, which saves a third of the work
    #[arg(long)]
    pub skip_alone: bool,

    /// Memory for encoded samples, in MiB per modality and split; the rest goes to a temporary file
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub data_memory: u64,
}

/// A modality is called starved if its accuracy after joint training is lower by this much, and the difference is
/// significant.
const STARVED: f64 = 0.05;

/// The result of the comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    event: &'static str,
    bench: &'static str,
    job: JobName,
    seed: u64,
    epochs: f64,
    /// The fusion rule of the job.
    fusion: RuleName,
    joint: EvaluationReport,
    /// Accuracy of the jointly trained head with all modalities of each sample.
    joint_head: f64,
    in_turns: EvaluationReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    alone: Option<EvaluationReport>,
    starved: Vec<ModalityName>,
}

/// Runs the command: trains in each way and compares.
///
/// # Errors
/// An invalid job file, data that cannot be read, a training that fails.
pub(super) async fn run(args: JointArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    let spec = args.job.load(&context.encoders)?;
    let progress = Progress::new();
    let done = compare(spec, &args, &context.encoders, &progress).await;
    progress.clear();
    let Some(comparison) = done? else { return Ok(Exit::Interrupted) };
    match format {
        Format::Json => output::json(&comparison)?,
        Format::Text => output::line(comparison.table().trim_end())?,
    }
    Ok(Exit::Success)
}

/// Trains in each way. None after Ctrl-C.
async fn compare(
    spec: JobSpec,
    args: &JointArgs,
    encoders: &Encoders,
    progress: &Progress,
) -> anyhow::Result<Option<Comparison>> {
    if spec.modalities.len() < 2 {
        let error = anyhow!("a job with one modality has nothing to train jointly; name at least two");
        return Err(error).or_exit(Exit::Usage);
    }
    let memory = args.data_memory << 20;
    let opening = tokio::spawn(Trainings::open(spec.clone(), memory, !args.skip_alone, encoders.clone()));
    let opening = async {
        let opened = progress.during("opening", opening).await.context("opening the data panicked")?;
        opened.or_exit(Exit::Usage)
    };
    let shown = progress.clone();
    let work = move |trainings: Trainings, cancelled: &CancellationToken| trainings.run(&shown, cancelled);
    let Some(Trained { split, epochs, joint, alone }) = until_interrupted(opening, work).await? else {
        return Ok(None);
    };
    let Some(in_turns) = in_turns::run(&spec, split, (memory, encoders), progress).await? else { return Ok(None) };
    Ok(Some(Comparison {
        event: "bench",
        bench: "joint",
        fusion: RuleName::from(&spec.fusion),
        job: spec.name,
        seed: spec.seed,
        epochs,
        starved: starved(&joint.report, alone.as_ref().unwrap_or(&in_turns)),
        joint_head: joint.summed,
        joint: joint.report,
        in_turns,
        alone,
    }))
}

/// The joint training and those of single modalities, which run in this process.
struct Trainings {
    job: JobSpec,
    split: Split,
    epochs: f64,
    joint: Training,
    alone: Vec<Training>,
}

/// The results of [`Trainings`].
struct Trained {
    split: Split,
    epochs: f64,
    joint: Measured,
    alone: Option<EvaluationReport>,
}

impl Trainings {
    async fn open(job: JobSpec, memory: u64, with_alone: bool, encoders: Encoders) -> anyhow::Result<Self> {
        let options = OpenOptions { memory, ..OpenOptions::new(antiphon_worker::stores()) };
        let mut modalities = Vec::with_capacity(job.modalities.len());
        for modality in &job.modalities {
            modalities.push(Opened::new(&job, modality, &options).await?);
        }
        let split = [Split::Test, Split::Validation]
            .into_iter()
            .find(|split| modalities.iter().any(|modality| modality.split(*split).is_some()));
        let none = || {
            anyhow!(
                "the job has neither a test split nor a validation split to measure on; add one, as in \
                 `data.validation: 10%`"
            )
        };
        let split = split.ok_or_else(none)?;
        let epochs = joint::epochs(&job, &modalities);
        let joint = Training::new(&job, &modalities, epochs, &encoders).await?;
        let mut alone = Vec::new();
        for modality in modalities.iter().filter(|_| with_alone) {
            alone.push(Training::new(&job, std::slice::from_ref(modality), epochs, &encoders).await?);
        }
        Ok(Self { job, split, epochs, joint, alone })
    }

    /// None if it was cancelled.
    fn run(mut self, progress: &Progress, cancelled: &CancellationToken) -> anyhow::Result<Option<Trained>> {
        let joint = std::iter::once((&mut self.joint, "training jointly"));
        let all = joint.chain(self.alone.iter_mut().map(|training| (training, "training alone")));
        for (training, doing) in all {
            progress.begin(doing, training.rows());
            while !training.is_done() {
                if cancelled.is_cancelled() {
                    return Ok(None);
                }
                training.step().map_err(exit_of)?;
                progress.at(training.rows_done());
            }
        }
        let measure =
            |members: &[Member<'_>]| joint::evaluate(&self.job, self.split, members, cancelled).map_err(exit_of);
        let Some(joint) = measure(&self.joint.members()?)? else { return Ok(None) };
        let mut members = Vec::new();
        for training in &self.alone {
            members.extend(training.members()?);
        }
        let alone = if members.is_empty() {
            None
        } else {
            let Some(measured) = measure(&members)? else { return Ok(None) };
            Some(measured.report)
        };
        Ok(Some(Trained { split: self.split, epochs: self.epochs, joint, alone }))
    }
}

/// The modalities whose accuracy is significantly lower after joint training than in `otherwise`.
fn starved(joint: &EvaluationReport, otherwise: &EvaluationReport) -> Vec<ModalityName> {
    let starved = |(name, scores): &(&ModalityName, &ModalityScores)| {
        let (low, high) = (scores.scores.accuracy, accuracy(otherwise, name));
        high - low > STARVED.max(2.0 * deviation(low, scores.samples).hypot(deviation(high, scores.samples)))
    };
    joint.modalities.iter().filter(starved).map(|(name, _)| name.clone()).collect()
}

fn accuracy(report: &EvaluationReport, modality: &ModalityName) -> f64 {
    report.modalities.get(modality).map_or(0.0, |scores| scores.scores.accuracy)
}

/// The standard deviation of a share that is measured on this many samples.
fn deviation(share: f64, samples: u64) -> f64 {
    (share * (1.0 - share) / samples.max(1) as f64).sqrt()
}

impl Comparison {
    fn table(&self) -> String {
        let (split, samples) = (self.joint.split, self.joint.samples);
        let plural = if self.epochs == 1.0 { "" } else { "s" };
        let epochs = (100.0 * self.epochs).round() / 100.0;
        let mut text = format!(
            "{}, seed {}, {epochs} epoch{plural}: accuracy on the {split} split, {samples} samples\n",
            self.job, self.seed
        );
        let reports = [Some(&self.joint), Some(&self.in_turns), self.alone.as_ref()];
        let heads = ["jointly", "in turns", "alone"].map(str::to_owned);
        row(
            &mut text,
            "",
            heads.into_iter().zip(&reports).filter(|(_, report)| report.is_some()).map(|(head, _)| head),
        );
        for name in self.joint.modalities.keys() {
            let cells = reports.iter().flatten().map(|report| percent(accuracy(report, name)));
            row(&mut text, name.as_str(), cells);
        }
        let fused = |report: &&EvaluationReport| {
            let scores = report.fused.get(&self.fusion).or_else(|| report.fused.get(&RuleName::Mean));
            scores.map(|scores| percent(scores.accuracy)).unwrap_or_default()
        };
        let rule = format!("fused, {}", format!("{:?}", self.fusion).to_lowercase());
        row(&mut text, &rule, reports.iter().flatten().map(fused));
        row(&mut text, "fused, joint head", [percent(self.joint_head)].into_iter());
        let otherwise = if self.alone.is_some() { "alone" } else { "in turns" };
        let reference = self.alone.as_ref().unwrap_or(&self.in_turns);
        for name in &self.starved {
            let lost = 100.0 * (accuracy(reference, name) - accuracy(&self.joint, name));
            // Writing to a String cannot fail.
            let _ = write!(text, "\njoint training starves {name}: {lost:.1} points below what it reaches {otherwise}");
        }
        if self.starved.is_empty() {
            text += "\njoint training starves no modality of this job";
        }
        text
    }
}

fn row(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let cells: String = cells.map(|cell| format!("{cell:>10}")).collect();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}", format!("  {name:<18}{cells}").trim_end());
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
