//! `antiphon chaos JOB.yaml`: whether a job comes to the same bits while its processes are killed.

mod cast;
mod following;
mod peace;
mod plan;
mod process;
mod proxy;
mod report;
mod run;

use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon_core::ids::{JobId, ModalityName};
use antiphon_core::spec::{JobSpec, Override};
use antiphon_model::device::DeviceChoice;
use antiphon_process::Interrupts;
use anyhow::Context as _;

use super::check;
use super::run::fresh_id;
use crate::duration;
use crate::exit::{Exit, OrExit as _};
use crate::output::{self, Format};
use crate::submission;
use cast::Casting;
use plan::Target;
use report::{Line, Report};
use run::{End, Ordeal, Outcome};

/// Kill the processes of a job at random, and see whether it comes to the same
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon chaos examples/spoken-digits.yaml --kill worker --every 5s
  antiphon chaos job.yaml --seed 7 --runs 20                        seeds 7 to 26, everything at once
  antiphon chaos job.yaml --kill connection,store --faults 30
  antiphon chaos job.yaml --expect sha256:… --set schedule.epochs=3 the digest is known

First the job runs in peace, in this process, to learn its digest. Then a coordinator and one worker per modality run it as
processes of their own on this machine. The seed says which of them is killed (and started again after a while) or stopped
(and goes on after a while), whose connection is cut, stalled or refused, and how long each lasts; --every is the mean time
between two faults. With `store`, in every process one of ten requests to the store is refused, one of twenty is carried out
but not answered, and others are late or break off. A process that ends by itself is started again, as a cluster would do.

What happens is printed, and written to trace.jsonl beside the logs of the processes, in a folder that is kept where a run
does not come to the same. A job that needs longer to come back than --every gets nowhere: it is `too slow` where it still takes
steps when --timeout is over, and `hung` where it has taken none for --hung-after.

Exit codes: 0 every run came to the same digest, 1 one did not, or failed, or hung, 4 one was too slow")]
pub struct ChaosArgs {
    /// The job file, YAML or JSON; `-` is standard input
    pub job: PathBuf,

    /// Set one field, as in `--set schedule.epochs=3`; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,

    /// What the faults are drawn by
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,

    /// What faults are made of
    #[arg(long, value_delimiter = ',', default_value = "worker,coordinator,store,connection", value_name = "WHAT")]
    pub kill: Vec<Target>,

    /// Mean time between two faults, as in 2s or 500ms; each lasts up to as long, some longer than `schedule.lease_ttl`
    #[arg(long, default_value = "2s", value_parser = duration::parse, value_name = "TIME")]
    pub every: Duration,

    /// The most faults of a run, apart from those of the store, a third of them at most before its first turn; 0 is none [default:
    /// without end]
    #[arg(long, value_name = "N")]
    pub faults: Option<u64>,

    /// Runs, with seeds from --seed on
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub runs: u64,

    /// The digest that the job comes to in peace, if it is known
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    pub expect: Option<String>,

    /// How long a run may take
    #[arg(long, default_value = "1h", value_parser = duration::parse, value_name = "TIME")]
    pub timeout: Duration,

    /// How long a run may go without a step of the head, before it is given up as hung
    #[arg(long, default_value = "10min", value_parser = duration::parse, value_name = "TIME")]
    pub hung_after: Duration,

    /// Folder for state, trace and logs of the runs [default: a temporary one, kept where a run does not come to the same]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,

    /// Folder or URL for the jobs' state, as of `antiphon coordinator` [default: in --folder]
    #[arg(long, value_name = "URL")]
    pub state: Option<String>,

    /// Where the encoders compute: auto, cpu, cuda or cuda:1
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// A digest as it is printed.
fn digest(text: &str) -> Result<String, String> {
    let hexadecimal = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    match hexadecimal.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        true => Ok(text.to_owned()),
        false => Err("a digest is sha256: and 64 hexadecimal digits, as a run prints it".to_owned()),
    }
}

/// Runs the job in peace, and then under faults.
///
/// # Errors
/// A bad job file, a job that fails in peace, processes that cannot be started.
pub async fn run(args: ChaosArgs, format: Format) -> anyhow::Result<Exit> {
    let (spec, _) = check::load(&args.job, &args.set).or_exit(Exit::Usage)?;
    args.device.open().or_exit(Exit::Usage)?;
    let mut interrupts = Interrupts::listen()?;
    let mut report = Report::new(format);
    let expected = match &args.expect {
        Some(digest) => digest.clone(),
        None => {
            if format == Format::Text {
                output::complain("first the job runs in peace, to learn its digest; --expect DIGEST does without")?;
            }
            tokio::select! {
            digest = peace::digest(&spec, args.device, &mut report) => digest?,
            () = interrupts.next() => return Ok(Exit::Interrupted),
            }
        }
    };
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let place = args.folder.as_deref().unwrap_or(folder.path());
    let (mut all_same, mut exit) = (true, Exit::TimedOut);
    for seed in (args.seed..).take(usize::try_from(args.runs)?) {
        match one(&args, &spec, seed, place, &expected, &mut report, &mut interrupts).await {
            Ok(End::Interrupted) => return Ok(Exit::Interrupted),
            Ok(End::Succeeded { digest }) if digest == expected => {}
            Ok(End::TooSlow) => all_same = false,
            Ok(_) => (all_same, exit) = (false, Exit::Failed),
            Err(error) => {
                let _kept = folder.keep();
                return Err(error);
            }
        }
    }
    if all_same {
        return Ok(Exit::Success);
    }
    let _kept = folder.keep();
    Ok(exit)
}

/// One run in a folder of its own below `place`.
async fn one(
    args: &ChaosArgs,
    spec: &JobSpec,
    seed: u64,
    place: &Path,
    expected: &str,
    report: &mut Report,
    interrupts: &mut Interrupts,
) -> anyhow::Result<End> {
    let job: JobId = fresh_id(&spec.name, place)?;
    let folder = std::path::absolute(place.join(job.as_str()))?;
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    report.trace_to(&folder.join("trace.jsonl"))?;
    report.tell(&Line::Began { seed, job: job.as_str(), folder: folder.display().to_string() })?;
    let modalities: Vec<ModalityName> = spec.modalities.iter().map(|modality| modality.name.clone()).collect();
    let state = args.state.clone().unwrap_or_else(|| folder.join("state").display().to_string());
    let store = args.kill.contains(&Target::Store).then_some(seed);
    let casting = Casting { state: &state, logs: &logs, modalities: &modalities, store, device: args.device };
    let ordeal = Ordeal {
        seed,
        targets: &args.kill,
        every: args.every,
        lease: Duration::from_secs_f64(spec.schedule.lease_ttl),
        faults: args.faults,
        timeout: args.timeout,
        hung_after: args.hung_after,
        modalities: &modalities,
    };
    let request = submission::request(spec, Some(job.to_string()), None);
    let outcome = run::run(&ordeal, &casting, request, report, interrupts).await?;
    report.tell(&ended(seed, &outcome, expected, &logs))?;
    Ok(outcome.end)
}

fn ended<'a>(seed: u64, outcome: &'a Outcome, expected: &'a str, logs: &Path) -> Line<'a> {
    let (outcome_word, reason, digest) = match &outcome.end {
        End::Succeeded { digest } if digest == expected => ("same", None, Some(digest.as_str())),
        End::Succeeded { digest } => ("different", None, Some(digest.as_str())),
        End::Failed { reason } => ("failed", Some(reason.clone()), None),
        End::TooSlow => {
            let advice = "it was still taking steps: raise --timeout, lower --faults, or let more time pass between them (--every)";
            ("too_slow", Some(advice.to_owned()), None)
        }
        End::Hung { reason } => {
            let reason = format!(
                "no step for {:.1} s: {reason}; the logs are in {}",
                outcome.quiet.as_secs_f64(),
                logs.display()
            );
            ("hung", Some(reason), None)
        }
        End::Interrupted => ("interrupted", None, None),
    };
    Line::Ended {
        seed,
        outcome: outcome_word,
        reason,
        turn: outcome.standing.turn,
        turns: outcome.standing.turns,
        digest,
        expected,
        seconds: outcome.took.as_secs_f64(),
        faults: &outcome.faults,
        ended_by_itself: outcome.ended_by_itself,
    }
}
