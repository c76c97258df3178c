//! `antiphon bench recovery`: recovery from the death of a worker and of the coordinator.

mod watching;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_core::ids::ModalityName;
use antiphon_core::spec::JobSpec;
use antiphon_proto::v1::SubmitJobRequest;
use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio::time::Instant;

use super::children;
use super::rows::Rows;
use crate::client::Client;
use crate::commands::shared_args::BenchJobArgs;
use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::lab::child_process::{ANY_PORT, ChildProcess};
use crate::lab::statistics::median;
use crate::output::{self, Format};
use watching::{Seen, Watching};

/// Measure recovery from the death of a worker and of the coordinator
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon bench recovery                  generated digits
  antiphon bench recovery job.yaml --modality audio --after 200
  antiphon bench recovery --no-spare --deaths 5 --format json

A coordinator and one worker per modality run a job as separate processes. --after turns after a checkpoint, a worker is killed with \
SIGKILL while a spare worker waits, or, with --no-spare, while its replacement starts. After another checkpoint, the coordinator is \
killed and restarted at once.

  replayed   steps of its modality that the replacement of a worker replays, or
             turns that all workers replay after the death of a coordinator
  ready      time from the kill until the replacement can resume
  caught up  time until the first new turn: of that modality, or of any modality
             for a coordinator
  stalled    longest time without a turn of any modality
  a turn     mean time of a turn before the kill")]
pub struct RecoveryArgs {
    /// The job
    #[command(flatten)]
    pub job: BenchJobArgs,

    /// Modality whose worker is killed [default: the first of the job]
    #[arg(long, value_name = "NAME")]
    pub modality: Option<String>,

    /// Turns from a checkpoint to a kill; fewer than between two checkpoints
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub after: u64,

    /// Kills of a worker, and of the coordinator
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub deaths: u32,

    /// Run without a spare worker; a replacement starts once the slot is free
    #[arg(long)]
    pub no_spare: bool,
}

const DEFAULT: &str = include_str!("default.yaml");

/// The process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Killed {
    Worker,
    Coordinator,
}

/// The cost of one death. Times are in seconds.
#[derive(Debug, Serialize)]
struct Death {
    event: &'static str,
    bench: &'static str,
    job: String,
    killed: Killed,
    /// The modality of the worker; None for the coordinator.
    modality: Option<ModalityName>,
    /// Whether a spare worker waited.
    spare: bool,
    /// Turns applied when it was killed.
    turn: u64,
    /// Turns since the newest checkpoint.
    since_checkpoint: u64,
    /// Steps of the modality, or turns of all workers.
    replayed: u64,
    ready: f64,
    caught_up: f64,
    stalled: f64,
    /// Mean time from one turn to the next before the kill.
    a_turn: f64,
}

/// Runs the command.
///
/// # Errors
/// An invalid job file, a process that fails, or a job that ends before it is measured.
pub(super) async fn run(args: RecoveryArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    let spec = args.job.load(DEFAULT, &context.encoders)?;
    let victim = victim(&args, &spec).or_exit(Exit::Usage)?;
    let mut rows = Rows::new(format)?;
    let state = tempfile::tempdir().context("cannot create a temporary folder")?;
    let starting = Cluster::start(&spec, victim, args.no_spare, state.path());
    let Some(mut cluster) = rows.meanwhile("starting the job", starting).await? else {
        return Ok(Exit::Interrupted);
    };
    let measured = measure(&args, &mut rows, &mut cluster, format).await;
    // The processes must exit before the folder is removed; otherwise they could still write to it.
    cluster.dismiss().await?;
    measured
}

async fn measure(
    args: &RecoveryArgs,
    rows: &mut Rows,
    cluster: &mut Cluster<'_>,
    format: Format,
) -> anyhow::Result<Exit> {
    let mut deaths = Vec::new();
    for _ in 0..args.deaths {
        for killed in [Killed::Worker, Killed::Coordinator] {
            let measuring = cluster.death(killed, args.after);
            match rows.next("killing and recovering", measuring, |_| Death::head(), Death::line).await? {
                Some(death) => deaths.push(death),
                None => return Ok(Exit::Interrupted),
            }
        }
    }
    if format == Format::Text {
        summary(&deaths)?;
    }
    Ok(Exit::Success)
}

fn victim(args: &RecoveryArgs, spec: &JobSpec) -> anyhow::Result<ModalityName> {
    let mut names = spec.modalities.iter().map(|modality| &modality.name);
    let found = match &args.modality {
        None => names.next(),
        Some(wanted) => names.find(|name| name.as_str() == wanted),
    };
    found.cloned().with_context(|| {
        let wanted = args.modality.as_deref().unwrap_or_default();
        let names: Vec<String> = spec.modalities.iter().map(|modality| format!("`{}`", modality.name)).collect();
        format!("--modality {wanted}: the job has {}", names.join(", "))
    })
}

fn summary(deaths: &[Death]) -> anyhow::Result<()> {
    output::line("")?;
    for killed in [Killed::Worker, Killed::Coordinator] {
        let of = |number: fn(&Death) -> f64| -> Vec<f64> {
            deaths.iter().filter(|death| death.killed == killed).map(number).collect()
        };
        let told = |values: Vec<f64>| {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            format!("{:.2} s ({least:.2} to {most:.2})", median(&values))
        };
        let (ready, caught_up) = (told(of(|death| death.ready)), told(of(|death| death.caught_up)));
        let stalled = told(of(|death| death.stalled));
        let name = if killed == Killed::Worker { "a worker's death" } else { "a coordinator's" };
        output::line(&format!("{name:<18} ready {ready}, caught up {caught_up}, stalled {stalled}"))?;
    }
    Ok(())
}

/// The processes that run the job.
struct Cluster<'a> {
    spec: JobSpec,
    address: String,
    state: &'a Path,
    coordinator: ChildProcess,
    workers: BTreeMap<ModalityName, ChildProcess>,
    victim: ModalityName,
    /// Whether a spare worker waits when the victim dies.
    with_spare: bool,
    spare: Option<ChildProcess>,
    watching: Watching,
}

impl<'a> Cluster<'a> {
    async fn start(spec: &JobSpec, victim: ModalityName, no_spare: bool, state: &'a Path) -> anyhow::Result<Self> {
        let mut spec = spec.clone();
        spec.checkpoints.to = None;
        let (coordinator, url) = coordinator(ANY_PORT, state).await?;
        let address = url.trim_start_matches("http://").to_owned();
        let mut workers = BTreeMap::new();
        for modality in &spec.modalities {
            workers.insert(modality.name.clone(), worker(&modality.name, &url)?);
        }
        let client = Client::to_own_process(&url)?;
        let request = SubmitJobRequest { specification: spec.to_json(), ..Default::default() };
        let job = client.submit(request).await?;
        let watching = Watching::new(client, &job);
        Ok(Self { spec, address, state, coordinator, workers, victim, with_spare: !no_spare, spare: None, watching })
    }

    /// Waits for `after` turns after a checkpoint, kills the process, and measures until the first new turn.
    async fn death(&mut self, killed: Killed, after: u64) -> anyhow::Result<Death> {
        if killed == Killed::Worker && self.with_spare {
            // Before the job trains, either worker could get the slot.
            self.watching.until_step(&mut self.coordinator).await?;
            self.spare = Some(worker(&self.victim, &self.url())?);
        }
        let before = self.watching.until_after_checkpoint(after, &mut self.coordinator).await?;
        let killed_at = Instant::now();
        match killed {
            Killed::Worker => self.kill_worker().await?,
            Killed::Coordinator => self.kill_coordinator().await?,
        }
        let mut measured = Measured { killed, victim: &self.victim, turn: before.turn, replayed: None, ready: None };
        let (mut last, mut stalled) = (killed_at, Duration::ZERO);
        let caught_up = loop {
            let seen = self.watching.next(&mut self.coordinator).await?;
            if let JobEvent::Step(_) = seen.event {
                stalled = stalled.max(seen.at.duration_since(last));
                last = seen.at;
            }
            if measured.is_caught_up_by(&seen)? {
                break seen.at;
            }
        };
        let seconds = |at: Instant| at.duration_since(killed_at).as_secs_f64();
        Ok(Death {
            event: "bench",
            bench: "recovery",
            job: self.spec.name.to_string(),
            killed,
            modality: (killed == Killed::Worker).then(|| self.victim.clone()),
            spare: killed == Killed::Worker && self.with_spare,
            turn: before.turn,
            since_checkpoint: before.since_checkpoint,
            replayed: measured.replayed.context("no event reports how much was replayed")?,
            ready: seconds(measured.ready.context("no event reports that the job resumed")?),
            caught_up: seconds(caught_up),
            stalled: stalled.as_secs_f64(),
            a_turn: before.a_turn,
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills the worker; the spare worker or a new one replaces it. Afterwards no spare waits, because after the death
    /// of a coordinator either of two workers could get the slot.
    async fn kill_worker(&mut self) -> anyhow::Result<()> {
        let next = match self.spare.take() {
            Some(spare) => spare,
            None => worker(&self.victim, &self.url())?,
        };
        let dead = self.workers.insert(self.victim.clone(), next);
        dead.context("the victim has a worker")?.kill().await
    }

    async fn kill_coordinator(&mut self) -> anyhow::Result<()> {
        self.coordinator.kill().await?;
        (self.coordinator, _) = coordinator(&self.address, self.state).await?;
        Ok(())
    }

    /// Kills all processes and waits until they have exited.
    async fn dismiss(&mut self) -> anyhow::Result<()> {
        for process in self.workers.values_mut().chain(&mut self.spare).chain([&mut self.coordinator]) {
            process.kill().await?;
        }
        Ok(())
    }
}

/// Starts a coordinator with this state. Returns the process and its URL.
async fn coordinator(address: &str, state: &Path) -> anyhow::Result<(ChildProcess, String)> {
    children::coordinator(address, &["--state", &state.display().to_string()], None).await
}

fn worker(modality: &ModalityName, url: &str) -> anyhow::Result<ChildProcess> {
    let arguments = ["worker", "--coordinator", url, "--modality", modality.as_str()];
    children::start(&format!("the worker of `{modality}`"), &arguments, None)
}

/// The measurements of a death, collected from events.
struct Measured<'a> {
    killed: Killed,
    victim: &'a ModalityName,
    /// Turns applied at the time of death.
    turn: u64,
    replayed: Option<u64>,
    ready: Option<Instant>,
}

impl Measured<'_> {
    /// Updates the measurements with an event. Returns whether the event is the first new turn.
    fn is_caught_up_by(&mut self, seen: &Seen) -> anyhow::Result<bool> {
        match (self.killed, &seen.event) {
            (Killed::Worker, JobEvent::WorkerReady { modality, replayed, .. }) if modality == self.victim => {
                (self.replayed, self.ready) = (Some(*replayed), Some(seen.at));
            }
            (Killed::Coordinator, JobEvent::Recovered { turn, .. }) => {
                self.replayed = Some(self.turn.saturating_sub(turn.0))
            }
            (Killed::Coordinator, JobEvent::Started { .. }) => self.ready = Some(seen.at),
            (_, JobEvent::Step(step)) if self.ready.is_some() => {
                return Ok(match self.killed {
                    Killed::Worker => step.modality == *self.victim,
                    Killed::Coordinator => step.turn.0 >= self.turn,
                });
            }
            (_, JobEvent::Finished(finished)) => {
                let reason = finished.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
                return Err(anyhow!("the job ended while it recovered{reason}"));
            }
            _ => {}
        }
        Ok(false)
    }
}

impl Death {
    fn head() -> String {
        format!(
            "{:<20}{:>8}{:>18}{:>10}{:>10}{:>12}{:>10}{:>10}",
            "killed", "turn", "since checkpoint", "replayed", "ready", "caught up", "stalled", "a turn"
        )
    }

    fn line(&self) -> String {
        let name = match &self.modality {
            Some(modality) => format!("worker of {modality}"),
            None => "coordinator".to_owned(),
        };
        let time = |seconds: f64| format!("{seconds:.2} s");
        format!(
            "{name:<20}{:>8}{:>18}{:>10}{:>10}{:>12}{:>10}{:>10}",
            self.turn,
            self.since_checkpoint,
            self.replayed,
            time(self.ready),
            time(self.caught_up),
            time(self.stalled),
            format!("{:.1} ms", 1e3 * self.a_turn),
        )
    }
}
