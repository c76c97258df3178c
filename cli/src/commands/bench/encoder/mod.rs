//! `antiphon bench encoder`: the time and memory of a training step.
//!
//! Each case runs in a child process, started with `--here`, so that it has its own peak memory and number of threads.

mod case;
mod measure;
mod memory;

use std::num::NonZeroUsize;
use std::process::Stdio;

use antiphon_core::spec::Precision;
use antiphon_model::device::{self, DeviceChoice};
use anyhow::{Context as _, anyhow, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::rows::Rows;
use crate::exit::{Exit, OrExit as _};
use crate::lab::statistics::median;
use crate::output::{self, Format};

use case::Case;
use measure::{Measured, Rule, StepTimes};

/// Measure the time and memory of a training step of an encoder
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon bench encoder                   common encoders, batches of 64
  antiphon bench encoder resnet18@1x128x128 vit-small --batch 16,64
  antiphon bench encoder bert-base@128 --optimizer adamw --threads 1
  antiphon bench encoder resnet50 --device cuda --precision bf16

Encoders: mlp, cnn, text, resnet18, resnet34, resnet50, vit-tiny, vit-small, vit-base, bert-tiny, bert-mini, bert-small, bert-medium, \
bert-base. The input follows after `@`: the length of a feature vector, channels x height x width of an image or spectrogram, or the \
tokens of a text.

A step is what a worker computes in a turn, except for data and head: forward from the batch to the features H, backward from a given \
dH, and one optimizer step. The table shows medians; JSON has every step. Peak memory is that of parameters, optimizer, gradients and \
activations, on the encoder's device. Each case runs in a separate process.")]
pub struct EncoderArgs {
    /// Encoders to measure, for example `resnet18@1x128x128` [default: six common ones]
    #[arg(value_name = "ENCODER[@INPUT]")]
    pub cases: Vec<Case>,

    /// Samples per batch; several sizes, separated by commas, are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "64", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Vec<u32>,

    /// Steps to measure
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,

    /// Steps before the measurement
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub warmup: u32,

    /// Optimizer
    #[arg(long, value_enum, default_value_t)]
    pub optimizer: Rule,

    /// Precision of the encoder; bf16 needs a GPU
    #[arg(long, default_value = "f32", value_parser = precision())]
    pub precision: Precision,

    /// Threads that compute [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,

    /// Device of the encoder: auto, cpu, cuda or cuda:N
    #[arg(long, default_value_t, env = "ANTIPHON_DEVICE")]
    pub device: DeviceChoice,

    /// Measure the case in this process
    #[arg(long, hide = true)]
    pub here: bool,
}

/// A parser that accepts the values of a job file.
fn precision() -> impl TypedValueParser<Value = Precision> {
    const ALL: [Precision; 2] = [Precision::F32, Precision::Bf16];
    let known = |name: String| ALL.into_iter().find(|precision| precision.name() == name).unwrap_or_default();
    PossibleValuesParser::new(ALL.map(Precision::name)).map(known)
}

/// One line of the table.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    event: String,
    bench: String,
    encoder: String,
    batch: usize,
    threads: usize,
    device: String,
    precision: Precision,
    /// Median seconds of a step.
    step_seconds: f64,
    samples_per_second: f64,
    #[serde(flatten)]
    measured: Measured,
}

/// Runs the command.
///
/// # Errors
/// An encoder does not accept its input, or a process fails.
pub(super) async fn run(args: EncoderArgs, format: Format) -> anyhow::Result<Exit> {
    if args.here {
        let [case] = args.cases.as_slice() else { bail!("--here measures exactly one case") };
        output::json(&measured_here(case, args.batch[0] as usize, &args)?)?;
        return Ok(Exit::Success);
    }
    let common = || case::COMMON.iter().map(|text| text.parse().expect("the common cases are valid")).collect();
    let cases: Vec<Case> = if args.cases.is_empty() { common() } else { args.cases.clone() };
    let mut rows = Rows::new(format)?;
    for (case, batch) in cases.iter().flat_map(|case| args.batch.iter().map(move |batch| (case, *batch as usize))) {
        let mut child = Child::start(case, batch, &args)?;
        if rows.next("measuring", child.row(case, batch), |_| HEAD.to_owned(), Row::line).await?.is_none() {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Success)
}

fn measured_here(case: &Case, batch: usize, args: &EncoderArgs) -> anyhow::Result<Row> {
    let counts = (args.warmup as usize, args.steps as usize);
    let device = args.device.open().or_exit(Exit::Usage)?;
    let measured = measure::measure(case, batch, counts, args.optimizer, (args.precision, &device))?;
    let step_seconds = median(&measured.steps.iter().map(StepTimes::total).collect::<Vec<_>>());
    Ok(Row {
        event: "bench".to_owned(),
        bench: "encoder".to_owned(),
        encoder: case.to_string(),
        batch,
        threads: threads(args),
        device: device::name(&device),
        precision: args.precision,
        step_seconds,
        samples_per_second: batch as f64 / step_seconds,
        measured,
    })
}

fn threads(args: &EncoderArgs) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    args.threads.map_or_else(cores, |threads| threads as usize)
}

/// The process that measures one case. It is killed when this value is dropped.
struct Child(tokio::process::Child);

impl Child {
    fn start(case: &Case, batch: usize, args: &EncoderArgs) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find the executable of this program")?;
        let rule = match args.optimizer {
            Rule::Sgd => "sgd",
            Rule::Adamw => "adamw",
        };
        let [batch, steps, warmup, threads] =
            [batch as u64, args.steps.into(), args.warmup.into(), threads(args) as u64].map(|n| n.to_string());
        let child = tokio::process::Command::new(program)
            .args(["bench", "encoder", &case.to_string(), "--here", "--batch", &batch, "--steps", &steps])
            .args(["--warmup", &warmup, "--optimizer", rule, "--threads", &threads])
            .args(["--device", &args.device.to_string(), "--precision", args.precision.name()])
            .env("RAYON_NUM_THREADS", &threads)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        Ok(Self(child.context("cannot start the measuring process")?))
    }

    /// Waits for the row that the process prints.
    async fn row(&mut self, case: &Case, batch: usize) -> anyhow::Result<Row> {
        let (mut printed, mut said) = (Vec::new(), String::new());
        let (stdout, stderr) = (self.0.stdout.take(), self.0.stderr.take());
        let (mut stdout, mut stderr) =
            stdout.zip(stderr).context("the output of the measuring process is read once")?;
        tokio::try_join!(stdout.read_to_end(&mut printed), stderr.read_to_string(&mut said))?;
        let status = self.0.wait().await?;
        if status.success() {
            return serde_json::from_slice(&printed).context("the measuring process did not print a row");
        }
        let said = said.trim().trim_start_matches("error: ");
        let why = match status.code() {
            None => format!(
                "the measuring process was killed ({status}), probably because memory ran out; use a smaller batch"
            ),
            Some(_) => said.to_owned(),
        };
        let exit = if status.code() == Some(2) { Exit::Usage } else { Exit::Failed };
        Err(anyhow!("{case}, batches of {batch}: {why}")).or_exit(exit)
    }
}

const HEAD: &str = "\
encoder                  batch threads  parameters     step  forward backward optimizer  samples/s  peak memory";

impl Row {
    fn line(&self) -> String {
        let median_of =
            |seconds: fn(&StepTimes) -> f64| time(median(&self.measured.steps.iter().map(seconds).collect::<Vec<_>>()));
        let peak = self.measured.peak_bytes.map_or("unknown".to_owned(), |bytes| format!("{:.0} MiB", mebi(bytes)));
        format!(
            "{:<24}{:>6}{:>8}{:>12}{:>9}{:>9}{:>9}{:>10}{:>11.1}{peak:>13}",
            self.encoder,
            self.batch,
            self.threads,
            self.measured.parameters,
            time(self.step_seconds),
            median_of(|times| times.forward),
            median_of(|times| times.backward),
            median_of(|times| times.optimizer),
            self.samples_per_second,
        )
    }
}

fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.2} s") }
}

#[cfg(test)]
mod tests {
    use antiphon_model::device::Device;

    use super::*;

    #[test]
    fn a_step_is_measured() {
        let case: Case = "cnn@1x16x16".parse().expect("a case");
        let measured =
            measure::measure(&case, 4, (1, 2), Rule::Adamw, (Precision::F32, &Device::Cpu)).expect("measured");
        assert_eq!(measured.steps.len(), 2);
        assert!(measured.parameters > 20_000, "{}", measured.parameters);
        assert!(
            measured.steps.iter().all(|times| times.forward > 0.0 && times.backward > 0.0 && times.optimizer > 0.0)
        );
        if cfg!(target_os = "linux") {
            assert!(measured.peak_bytes.is_some());
        }
    }
}
