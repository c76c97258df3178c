//! `antiphon bench scale`: how many jobs one coordinator can run.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_core::times::{Account, CoordinatorTimes, Queued};
use antiphon_proto::assignment::HeadShape;
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_transport::ReconnectPolicy;
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio::time::Instant;

use super::children;
use super::head_worker::{self, HeadWorker, Sent, Worked};
use super::rows::Rows;
use crate::client::{Client, Events, Silent};
use crate::exit::Exit;
use crate::lab::child_process::ANY_PORT;
use crate::lab::cores;
use crate::lab::statistics::Quantiles;
use crate::output::Format;

/// Measure how many jobs one coordinator can run
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon bench scale                     1, 10 and 100 jobs of three workers
  antiphon bench scale --jobs 50,200 --turns 50000 --format json

A coordinator runs as a separate process on one core. Each job has three workers without encoders, which send contributions as fast \
as the coordinator answers. All workers share another core if there is one.

  maths        what the coordinator computes for a turn: checks, projection,
               optimizer, fold
  cpu          total processor time of the coordinator for a turn
  queued       how long contributions wait for their job because the core works
               for other jobs
  memory/job   memory that a job adds to the coordinator, with the connections
               of its workers
  memory/turn  memory that the events of a turn add

Both memory figures are reliable only with many jobs and turns.")]
pub struct ScaleArgs {
    /// Numbers of jobs that run at the same time, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,10,100", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub jobs: Vec<u32>,

    /// Turns to measure, of all jobs together, after a tenth as many to warm up
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=1_000_000_000))]
    pub turns: u64,
}

const MODALITIES: [&str; 3] = ["a", "b", "c"];
const HEAD: HeadShape = HeadShape { classes: 10, width: 64 };
const SAMPLES: u32 = 16;
/// Ticks per second in which Linux counts processor time.
const TICKS_PER_SECOND: f64 = 100.0;

/// One line of the table. Times are in seconds, memory is in bytes.
#[derive(Debug, Serialize)]
struct Row {
    event: &'static str,
    bench: &'static str,
    jobs: u32,
    workers: u32,
    head: String,
    turns: u64,
    turns_per_second: f64,
    turn: Quantiles,
    /// Time of the coordinator's computation per turn.
    maths: f64,
    /// Processor time of the coordinator per turn; None if the system does not report it.
    cpu: Option<f64>,
    /// Time in the queue of the job, mean of all contributions.
    queued_mean: f64,
    /// Time in the queue of the job, maximum of all contributions.
    queued_max: f64,
    memory_per_job: Option<f64>,
    memory_per_turn: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// A process fails.
pub(super) async fn run(args: ScaleArgs, format: Format) -> anyhow::Result<Exit> {
    let mut rows = Rows::new(format)?;
    for jobs in args.jobs {
        let measuring = measure(jobs, args.turns);
        if rows.next("measuring turns", measuring, |_| Row::head(), Row::line).await?.is_none() {
            return Ok(Exit::Interrupted);
        }
    }
    Ok(Exit::Success)
}

async fn measure(jobs: u32, turns: u64) -> anyhow::Result<Row> {
    let cores = cores::available().unwrap_or_default();
    let (mut coordinator, url) =
        children::coordinator(ANY_PORT, &["--state", "memory://bench"], cores.first().copied()).await?;
    let process = coordinator.id();
    let each = (turns / u64::from(jobs)).max(10);
    let warmup = (each / 10).max(2);
    let client = Client::to_own_process(&url)?;
    let idle = Usage::of(process, 0);
    let workers = Workers::start(jobs, &url, cores.get(1).copied())?;
    for job in 0..jobs {
        let specification = head_worker::job(HEAD, SAMPLES, &MODALITIES, warmup + each + 1);
        client
            .submit(SubmitJobRequest { specification, job: Some(format!("bench-{job}")), ..Default::default() })
            .await?;
    }
    let all = u64::from(jobs) * (warmup + each);
    let measured = async {
        let begin = workers.after(process, u64::from(jobs) * warmup).await;
        // The measurement ends before the first jobs run out of turns.
        let end = workers.after(process, all - all / 10).await;
        [idle, begin, end]
    };
    let usage = tokio::select! {
        usage = measured => usage,
        error = coordinator.ended() => return Err(error),
    };
    let worked = workers.ended().await?;
    let mut accounts = Vec::new();
    for job in 0..jobs {
        accounts.push(account(&client, &format!("bench-{job}")).await?);
    }
    Ok(Row::of(jobs, turn_times(worked, warmup), &accounts, usage))
}

/// The durations of all turns, each from one contribution to the next of the same job.
fn turn_times(worked: Vec<Worked>, warmup: u64) -> Vec<f64> {
    let mut jobs: BTreeMap<String, Vec<Sent>> = BTreeMap::new();
    for Worked { job, sent } in worked {
        jobs.entry(job).or_default().extend(sent);
    }
    let mut times = Vec::new();
    for sent in jobs.values_mut() {
        sent.sort_by_key(|sent| sent.turn);
        let lasted = sent.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at).as_secs_f64());
        times.extend(lasted.skip(warmup as usize));
    }
    times
}

/// The coordinator's times for a job that has ended.
async fn account(client: &Client, job: &str) -> anyhow::Result<(Account<CoordinatorTimes>, Queued)> {
    let mut events = Events::new(client.clone(), job, 0, ReconnectPolicy::ONCE);
    let mut told = None;
    loop {
        match events.next(&mut Silent).await?.event {
            JobEvent::Times { coordinator, queued, .. } => told = Some((coordinator, queued)),
            JobEvent::Finished(_) => break,
            _ => {}
        }
    }
    told.with_context(|| format!("job {job} has no event with times"))
}

/// The workers of all jobs, on one thread.
struct Workers {
    thread: std::thread::JoinHandle<anyhow::Result<Vec<Worked>>>,
    steps: Arc<AtomicU64>,
}

impl Workers {
    fn start(jobs: u32, url: &str, core: Option<usize>) -> anyhow::Result<Self> {
        let steps = Arc::new(AtomicU64::new(0));
        let worker = |job: u32, modality: &str| HeadWorker {
            name: format!("bench-{job}-{modality}"),
            modality: modality.to_owned(),
            coordinator: url.to_owned(),
            of: HEAD,
            samples: SAMPLES,
            steps: Arc::clone(&steps),
        };
        let all: Vec<HeadWorker> = (0..jobs).flat_map(|job| MODALITIES.map(|modality| worker(job, modality))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("bench-workers".to_owned());
        let work = move || runtime.block_on(futures::future::try_join_all(all.into_iter().map(HeadWorker::work)));
        Ok(Self { thread: cores::bound_to(core, || thread.spawn(work))?, steps })
    }

    /// Waits until this many steps are taken or all workers have ended, and returns the coordinator's usage at that
    /// time.
    async fn after(&self, process: Option<u32>, steps: u64) -> Usage {
        while self.steps.load(Ordering::Relaxed) < steps && !self.thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Usage::of(process, self.steps.load(Ordering::Relaxed))
    }

    async fn ended(self) -> anyhow::Result<Vec<Worked>> {
        let ended = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        ended.map_err(|_| anyhow!("the workers of the bench panicked"))?
    }
}

/// The resources that a process has used so far, as Linux counts them.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Instant,
    /// Number of steps taken at the same time.
    steps: u64,
    cpu: Option<f64>,
    memory: Option<f64>,
}

impl Usage {
    fn of(process: Option<u32>, steps: u64) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", process?)).ok();
        let cpu = || {
            let stat = read("stat")?;
            // The name can contain spaces and parentheses. After it, state is the third field, user and system time are
            // the 14th and 15th.
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
            let mut ticks = || fields.next()?.parse::<f64>().ok();
            Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
        };
        let memory = || {
            let status = read("status")?;
            let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            Some(value.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
        };
        Self { at: Instant::now(), steps, cpu: cpu(), memory: memory() }
    }
}

impl Row {
    fn of(
        jobs: u32,
        turns: Vec<f64>,
        accounts: &[(Account<CoordinatorTimes>, Queued)],
        [idle, begin, end]: [Usage; 3],
    ) -> Self {
        let steps = (end.steps - begin.steps).max(1) as f64;
        let (mut all, mut queued) = (Account::<CoordinatorTimes>::default(), Queued::default());
        for (account, of_job) in accounts {
            all.steps += account.steps;
            all.seconds += account.seconds;
            queued.mean += of_job.mean / accounts.len() as f64;
            queued.max = queued.max.max(of_job.max);
        }
        let CoordinatorTimes { decode, project, step, fold, encode, .. } = all.seconds;
        Self {
            event: "bench",
            bench: "scale",
            jobs,
            workers: jobs * MODALITIES.len() as u32,
            head: format!("{}x{}x{SAMPLES}", HEAD.classes, HEAD.width),
            turns: turns.len() as u64,
            turns_per_second: steps / end.at.duration_since(begin.at).as_secs_f64(),
            turn: Quantiles::of(turns),
            maths: (decode + project + step + fold + encode) / (all.steps.max(1) as f64),
            cpu: end.cpu.zip(begin.cpu).map(|(end, begin)| (end - begin) / steps),
            queued_mean: queued.mean,
            queued_max: queued.max,
            memory_per_job: begin.memory.zip(idle.memory).map(|(begin, idle)| (begin - idle) / f64::from(jobs)),
            memory_per_turn: end.memory.zip(begin.memory).map(|(end, begin)| (end - begin) / steps),
        }
    }

    fn head() -> String {
        format!(
            "{:>6}{:>9}{:>10}{:>18}{:>12}{:>12}{:>22}{:>14}{:>16}",
            "jobs",
            "workers",
            "turns/s",
            "turn p50   p99",
            "maths/turn",
            "cpu/turn",
            "queued mean      max",
            "memory/job",
            "memory/turn"
        )
    }

    fn line(&self) -> String {
        let time = |seconds: f64| format!("{:.3} ms", 1e3 * seconds);
        let known = |value: Option<f64>, text: fn(f64) -> String| value.map_or_else(|| "unknown".to_owned(), text);
        format!(
            "{:>6}{:>9}{:>10.0}{:>9}{:>9}{:>12}{:>12}{:>11}{:>11}{:>14}{:>16}",
            self.jobs,
            self.workers,
            self.turns_per_second,
            format!("{:.2} ms", 1e3 * self.turn.p50),
            format!("{:.1} ms", 1e3 * self.turn.p99),
            time(self.maths),
            self.cpu.map_or_else(|| "unknown".to_owned(), time),
            time(self.queued_mean),
            time(self.queued_max),
            known(self.memory_per_job, |bytes| format!("{:.0} KiB", bytes / 1024.0)),
            known(self.memory_per_turn, |bytes| format!("{bytes:.0} B")),
        )
    }
}
