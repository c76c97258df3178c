//! `antiphon chaos JOB.yaml`: tests that a job gives the same bits while its processes are killed.

mod baseline;
mod follower;
mod report;
mod scenario;

use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon_core::ids::{JobId, ModalityName};
use antiphon_core::spec::JobSpec;
use antiphon_model::device::DeviceChoice;
use antiphon_process::Interrupts;
use anyhow::Context as _;

use super::shared_args::JobArgs;
use crate::client;
use crate::context::Context;
use crate::duration;
use crate::exit::{Exit, OrExit as _};
use crate::lab::fault::Target;
use crate::lab::processes::Setup;
use crate::output::{self, Format};
use crate::runs::fresh_id;
use report::{Line, Report};
use scenario::{End, Outcome, Scenario};

/// Kill the processes of a job at random and compare its result
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon chaos examples/spoken-digits.yaml --kill worker --every 5s
  antiphon chaos job.yaml --seed 7 --runs 20      seeds 7 to 26
  antiphon chaos job.yaml --kill connection,store --faults 30
  antiphon chaos job.yaml --expect sha256:…       skips the baseline run

First a baseline run without faults trains the job in this process, to learn its digest. Then a coordinator and one worker per \
modality run the job as separate processes on this machine. The seed determines every fault. A process is killed and later restarted, \
or stopped and later resumed. The connection of a worker is closed, stalled or refused. --every is the mean time between two faults. \
With `store`, every process has a failing store: a tenth of its requests are refused, a twentieth are executed but not answered, and \
others are slow or truncated. A process that exits by itself is restarted, as in a cluster.

Every fault is printed and written to trace.jsonl, beside the logs of the processes. The folder is kept if a run differs. A job that \
needs longer than --every to recover makes no progress. A run is `too slow` if its job still takes steps when --timeout ends, and \
`hung` if its job has taken no step for --hang-timeout.

Exit codes: 0 every run gave the same digest, 1 a run differed, failed or hung, 4 a run was too slow")]
pub struct ChaosArgs {
    /// The job file
    #[command(flatten)]
    pub job: JobArgs,

    /// Seed of the faults
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// Kinds of faults, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "worker,coordinator,store,connection", value_name = "WHAT")]
    pub kill: Vec<Target>,

    /// Mean time between two faults, as 2s or 500ms; faults last no longer than this, some of them longer than
    /// `schedule.lease_ttl`
    #[arg(long, default_value = "2s", value_parser = duration::parse, value_name = "TIME")]
    pub every: Duration,

    /// Number of faults in a run, not counting faults of stores; at most a third of them happen before the first turn
    /// [default: no limit]
    #[arg(long, value_name = "N")]
    pub faults: Option<u64>,

    /// Number of runs; the seed grows by one from run to run
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub runs: u64,

    /// Digest of the job without faults, if it is known; skips the baseline run
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub expect: Option<String>,

    /// Time limit of a run
    #[arg(long, default_value = "1h", value_parser = duration::parse, value_name = "TIME")]
    pub timeout: Duration,

    /// Time without a step of the head after which a run counts as hung
    #[arg(long, default_value = "10min", value_parser = duration::parse, value_name = "TIME")]
    pub hang_timeout: Duration,

    /// Folder for state, trace and logs of the runs [default: a temporary one, kept if a run differs]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,

    /// Folder or URL for the state of jobs, as in `antiphon coordinator --state` [default: in --folder]
    #[arg(long, value_name = "DIR|URL")]
    pub state: Option<String>,

    /// Device of the encoders: auto, cpu, cuda or cuda:N
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// Parses a digest as runs print it.
fn digest(text: &str) -> Result<String, String> {
    let hexadecimal = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    match hexadecimal.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        true => Ok(text.to_owned()),
        false => Err("a digest is sha256: followed by 64 hexadecimal digits, as a run prints it".to_owned()),
    }
}

/// Runs the command: the baseline run, then the runs with faults.
///
/// # Errors
/// An invalid job file, a job that fails without faults, processes that cannot be started.
pub async fn run(args: ChaosArgs, context: &Context) -> anyhow::Result<Exit> {
    let format = context.format;
    let spec = args.job.load(&context.encoders)?;
    args.device.open().or_exit(Exit::Usage)?;
    let mut interrupts = Interrupts::listen()?;
    let mut report = Report::new(format);
    let expected = match &args.expect {
        Some(digest) => digest.clone(),
        None => {
            if format == Format::Text {
                output::complain("starting the baseline run, which determines the digest; --expect DIGEST skips it")?;
            }
            tokio::select! {
                digest = baseline::digest(&spec, (args.device, &context.encoders), &mut report) => digest?,
                () = interrupts.next() => return Ok(Exit::Interrupted),
            }
        }
    };
    let temporary = tempfile::tempdir().context("cannot create a temporary folder")?;
    let chaos = Chaos {
        args: &args,
        spec: &spec,
        expected: &expected,
        folder: args.folder.as_deref().unwrap_or(temporary.path()),
    };
    let (mut all_same, mut exit) = (true, Exit::TimedOut);
    for seed in (args.seed..).take(usize::try_from(args.runs)?) {
        match chaos.run(seed, &mut report, &mut interrupts).await {
            Ok(End::Interrupted) => return Ok(Exit::Interrupted),
            Ok(End::Succeeded { digest }) if digest == expected => {}
            Ok(End::TooSlow) => all_same = false,
            Ok(_) => (all_same, exit) = (false, Exit::Failed),
            Err(error) => {
                let _kept = temporary.keep();
                return Err(error);
            }
        }
    }
    if all_same {
        return Ok(Exit::Success);
    }
    let _kept = temporary.keep();
    Ok(exit)
}

/// The settings that all runs share.
struct Chaos<'a> {
    args: &'a ChaosArgs,
    spec: &'a JobSpec,
    /// The digest of the baseline run.
    expected: &'a str,
    /// Each run has a folder below it.
    folder: &'a Path,
}

impl Chaos<'_> {
    async fn run(&self, seed: u64, report: &mut Report, interrupts: &mut Interrupts) -> anyhow::Result<End> {
        let Self { args, spec, expected, .. } = self;
        let job: JobId = fresh_id(&spec.name, self.folder, "--folder")?;
        let folder = std::path::absolute(self.folder.join(job.as_str()))?;
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        report.trace_to(&folder.join("trace.jsonl"))?;
        report.tell(&Line::RunStarted { seed, job: job.as_str(), folder: folder.display().to_string() })?;
        let modalities: Vec<ModalityName> = spec.modalities.iter().map(|modality| modality.name.clone()).collect();
        let state = args.state.clone().unwrap_or_else(|| folder.join("state").display().to_string());
        let store = args.kill.contains(&Target::Store).then_some(seed);
        let setup = Setup { state: &state, logs: &logs, modalities: &modalities, store, device: args.device };
        let scenario = Scenario {
            seed,
            targets: &args.kill,
            every: args.every,
            lease: Duration::from_secs_f64(spec.schedule.lease_ttl),
            faults: args.faults,
            timeout: args.timeout,
            hang_timeout: args.hang_timeout,
            modalities: &modalities,
        };
        let request = client::request(spec, Some(job.to_string()), None);
        let outcome = scenario::run(&scenario, &setup, request, report, interrupts).await?;
        report.tell(&finished(seed, &outcome, expected, &logs))?;
        Ok(outcome.end)
    }
}

fn finished<'a>(seed: u64, outcome: &'a Outcome, expected: &'a str, logs: &Path) -> Line<'a> {
    let (outcome_name, reason, digest) = match &outcome.end {
        End::Succeeded { digest } if digest == expected => ("same", None, Some(digest.as_str())),
        End::Succeeded { digest } => ("different", None, Some(digest.as_str())),
        End::Failed { reason } => ("failed", Some(reason.clone()), None),
        End::TooSlow => {
            let advice = "the job still takes steps: raise --timeout or --every, or lower --faults";
            ("too_slow", Some(advice.to_owned()), None)
        }
        End::Hung { reason } => {
            let (seconds, logs) = (outcome.quiet.as_secs_f64(), logs.display());
            ("hung", Some(format!("no step for {seconds:.1} s: {reason}; the logs are in {logs}")), None)
        }
        End::Interrupted => ("interrupted", None, None),
    };
    Line::RunFinished {
        seed,
        outcome: outcome_name,
        reason,
        turn: outcome.progress.turn,
        turns: outcome.progress.turns,
        digest,
        expected,
        seconds: outcome.took.as_secs_f64(),
        faults: &outcome.faults,
        process_exits: outcome.process_exits,
    }
}
