//! `antiphon bench pipeline`: the speedup of encoders that compute at the same time.

use antiphon_core::event::{FinalState, JobEvent};
use antiphon_core::spec::{Every, JobSpec, Length, ScheduleMode};
use antiphon_model::custom::Encoders;
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_transport::ReconnectPolicy;
use anyhow::{Context as _, anyhow, bail};
use serde::Serialize;
use tokio::time::Instant;

use super::children;
use super::rows::Rows;
use crate::client::{Client, Events, Silent};
use crate::commands::shared_args::BenchJobArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::follow::Accounts;
use crate::lab::child_process::{ANY_PORT, ChildProcess};
use crate::lab::cores;
use crate::lab::statistics::median;
use crate::output::{self, Format};

/// Measure the speedup of encoders that compute at the same time
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon bench pipeline                  two equal residual networks
  antiphon bench pipeline job.yaml --cycles 20 --runs 5
  antiphon bench pipeline job.yaml --set schedule.batch=16 --format json

A coordinator and one worker per modality run as separate processes. Each worker computes on one thread, on its own core if there are \
enough cores. Runs alternate between all encoders at the same time and `schedule.mode: sequential`. Both must give the same bits. The \
time of a cycle is measured from the first measured step of the head to the last, divided by the cycles between.")]
pub struct PipelineArgs {
    /// The job
    #[command(flatten)]
    pub job: BenchJobArgs,

    /// Cycles to measure in each run, after two to warm up
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub cycles: u64,

    /// Pairs of runs
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
}

const WARMUP: u64 = 2;
const DEFAULT: &str = include_str!("default.yaml");

/// One run.
#[derive(Debug, Clone, Serialize)]
struct Run {
    schedule: ScheduleMode,
    seconds_per_cycle: f64,
    digest: String,
    times: Accounts,
}

/// A sequential run and a pipelined one.
#[derive(Debug, Serialize)]
struct Pair {
    event: &'static str,
    bench: &'static str,
    job: String,
    workers: usize,
    /// Number of cores that workers were bound to, one each; 0 if the system cannot bind them.
    cores: usize,
    sequential: Run,
    pipelined: Run,
    /// Sequential time divided by pipelined time.
    speedup: f64,
}

/// Runs the command.
///
/// # Errors
/// An invalid job file, a process that fails, or runs that give different bits.
pub(super) async fn run(args: PipelineArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    let spec = load(&args, &context.encoders)?;
    let mut rows = Rows::new(format)?;
    let mut cluster = Cluster::start(&spec).await?;
    let mut pairs: Vec<Pair> = Vec::new();
    for _ in 0..args.runs {
        let measuring = cluster.pair(&spec, args.cycles);
        match rows.next("measuring cycles", measuring, Pair::head, Pair::line).await? {
            Some(pair) => pairs.push(pair),
            None => return Ok(Exit::Interrupted),
        }
    }
    if format == Format::Text {
        summary(&pairs)?;
    }
    Ok(Exit::Success)
}

fn summary(pairs: &[Pair]) -> anyhow::Result<()> {
    let speedups: Vec<f64> = pairs.iter().map(|pair| pair.speedup).collect();
    output::line(&format!("{:>42.2}   (median)", median(&speedups)))?;
    if let Some(last) = pairs.last() {
        for run in [&last.sequential, &last.pipelined] {
            output::line(&format!("\n{}: {}", run.schedule.as_str(), run.times.table().trim_end()))?;
        }
        output::line(&format!("\nall runs gave the same bits: {}", last.pipelined.digest))?;
    }
    Ok(())
}

fn load(args: &PipelineArgs, encoders: &Encoders) -> anyhow::Result<JobSpec> {
    let mut spec = args.job.load(DEFAULT, encoders)?;
    // Only turns are measured. One checkpoint at the end is enough to compare the results.
    spec.evaluation.every = Every::End;
    spec.checkpoints.every = Every::End;
    spec.checkpoints.to = None;
    Ok(spec)
}

/// The processes that the runs share.
struct Cluster {
    client: Client,
    coordinator: ChildProcess,
    workers: Vec<ChildProcess>,
    cores: usize,
    runs: u32,
    _state: tempfile::TempDir,
}

impl Cluster {
    async fn start(spec: &JobSpec) -> anyhow::Result<Self> {
        let state = tempfile::tempdir().context("cannot create a temporary folder")?;
        let place = state.path().display().to_string();
        let (coordinator, url) = children::coordinator(ANY_PORT, &["--state", &place], None).await?;
        let cores = cores::available().unwrap_or_default();
        let mut workers = Vec::new();
        for (at, modality) in spec.modalities.iter().enumerate() {
            let core = (!cores.is_empty()).then(|| cores[at % cores.len()]);
            let name = format!("the worker of `{}`", modality.name);
            let arguments = ["worker", "--coordinator", &url, "--modality", modality.name.as_str()];
            workers.push(children::start(&name, &arguments, core)?);
        }
        let client = Client::to_own_process(&url)?;
        let cores = cores.len().min(workers.len());
        Ok(Self { client, coordinator, workers, cores, runs: 0, _state: state })
    }

    /// Measures both runs. The order alternates, so that changes in the machine's speed favour neither.
    async fn pair(&mut self, spec: &JobSpec, cycles: u64) -> anyhow::Result<Pair> {
        let sequential_first = self.runs.is_multiple_of(4);
        let mut pipelined = None;
        if !sequential_first {
            pipelined = Some(self.run(spec, ScheduleMode::Pipelined, cycles).await?);
        }
        let sequential = self.run(spec, ScheduleMode::Sequential, cycles).await?;
        let pipelined = match pipelined {
            Some(run) => run,
            None => self.run(spec, ScheduleMode::Pipelined, cycles).await?,
        };
        if sequential.digest != pipelined.digest {
            bail!(
                "the runs gave different bits: {} sequential, {} pipelined; this is a bug, please report it",
                sequential.digest,
                pipelined.digest
            );
        }
        Ok(Pair {
            event: "bench",
            bench: "pipeline",
            job: spec.name.to_string(),
            workers: self.workers.len(),
            cores: self.cores,
            speedup: sequential.seconds_per_cycle / pipelined.seconds_per_cycle,
            sequential,
            pipelined,
        })
    }

    async fn run(&mut self, spec: &JobSpec, mode: ScheduleMode, cycles: u64) -> anyhow::Result<Run> {
        let mut spec = spec.clone();
        spec.schedule.mode = mode;
        let turns = spec.schedule.turns_per_cycle(&spec.modalities);
        spec.schedule.length = Length::Turns((WARMUP + cycles) * turns);
        self.runs += 1;
        let job = Some(format!("run-{}", self.runs));
        let request = SubmitJobRequest { specification: spec.to_json(), job, ..Default::default() };
        let job = self.client.submit(request).await?;
        let client = self.client.clone();
        let ended = futures::future::select_all(
            std::iter::once(&mut self.coordinator).chain(&mut self.workers).map(|process| Box::pin(process.ended())),
        );
        tokio::select! {
            run = follow(&client, &job, mode, turns, cycles) => run,
            (error, ..) = ended => Err(error),
        }
    }
}

/// Watches a run to its end.
async fn follow(client: &Client, job: &str, mode: ScheduleMode, turns: u64, cycles: u64) -> anyhow::Result<Run> {
    let mut events = Events::new(client.clone(), job, 0, ReconnectPolicy::ONCE);
    let (mut first, mut last, mut times) = (None, None, None);
    loop {
        let watched = events.next(&mut Silent).await?;
        match watched.event {
            // The time of the measured cycles starts at the last step of the warm-up.
            JobEvent::Step(step) if step.turn.0 + 1 == WARMUP * turns => first = Some(Instant::now()),
            JobEvent::Step(step) if step.turn.0 + 1 == (WARMUP + cycles) * turns => last = Some(Instant::now()),
            JobEvent::Times { modalities, coordinator, .. } => times = Some(Accounts { modalities, coordinator }),
            JobEvent::Finished(finished) if finished.state == FinalState::Succeeded => {
                let (first, last) = first.zip(last).context("the events have no steps")?;
                return Ok(Run {
                    schedule: mode,
                    seconds_per_cycle: last.duration_since(first).as_secs_f64() / cycles as f64,
                    digest: finished.digest.context("a job that succeeded has a digest")?,
                    times: times.context("the events have no times")?,
                });
            }
            JobEvent::Finished(finished) => {
                let reason = finished.reason.unwrap_or_else(|| "it was stopped".to_owned());
                return Err(anyhow!("the run failed: {reason}"));
            }
            _ => {}
        }
    }
}

impl Pair {
    fn head(&self) -> String {
        let cores = match self.cores {
            0 => "cores chosen by the system".to_owned(),
            1 => "1 core".to_owned(),
            cores => format!("{cores} cores"),
        };
        format!("{}: {} workers on {cores}\n  sequential    pipelined   times as fast", self.job, self.workers)
    }

    fn line(&self) -> String {
        let time = |run: &Run| format!("{:.1} ms", 1e3 * run.seconds_per_cycle);
        format!("{:>12} {:>12} {:>15.2}", time(&self.sequential), time(&self.pipelined), self.speedup)
    }
}
