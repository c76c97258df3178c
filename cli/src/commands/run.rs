//! `antiphon run JOB.yaml`: a coordinator and one worker per modality in this process, over real loopback gRPC.

use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon_core::ids::{JobId, JobName};
use antiphon_core::spec::{JobSpec, Override, ScheduleMode};
use antiphon_model::device::DeviceChoice;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore};
use antiphon_store::checkpoints::{Checkpoint, CheckpointStore};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use anyhow::{Context as _, anyhow};
use chrono::Utc;
use object_store::ObjectStore as _;

use super::check;
use crate::client::Client;
use crate::cluster::{Cluster, ClusterConfig};
use crate::exit::{Exit, OrExit as _};
use crate::follow::{self, Followed, OnInterrupt};
use crate::output::Format;
use crate::submission;

const STATE: &str = "./antiphon-runs";
const DECODE_THREADS: usize = 1;
const DATA_MEMORY: u64 = 256;
const HEAD_MEMORY: u64 = 4096;

/// Train a job here: a coordinator and one worker per modality in this process
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon run examples/spoken-digits.yaml
  antiphon run job.yaml --set head.projection=off --set schedule.epochs=5
  antiphon run job.yaml --resume                  go on where the last run of this job stopped
  antiphon run job.yaml --resume antiphon-runs/JOB/checkpoints/00000300

Ctrl-C stops at the next turn boundary, writes a checkpoint and says how to go on; a second Ctrl-C ends at once.")]
pub struct RunArgs {
    /// The job file, YAML or JSON; `-` is standard input
    pub job: PathBuf,

    /// Set one field, as in `--set schedule.epochs=3`; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,

    /// Let all encoders compute at once, or one modality after the other to compare with; takes the place of the job's `schedule.mode`
    #[arg(long, value_name = "MODE")]
    pub schedule: Option<Schedule>,

    /// Go on from a checkpoint: its folder or URL, the folder of a run, or nothing for the newest run of this job
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, default_missing_value = "")]
    pub resume: Option<String>,

    /// Folder of the runs' state, unless the job names a store
    #[arg(long, env = "ANTIPHON_STATE", default_value = STATE, value_name = "DIR")]
    pub state: PathBuf,

    /// Threads that decode samples ahead, per modality
    #[arg(long, default_value_t = DECODE_THREADS, value_name = "N")]
    pub decode_threads: usize,

    /// Mebibytes of undecoded samples kept in memory per modality and split; what is beyond goes to a temporary file
    #[arg(long, default_value_t = DATA_MEMORY, value_name = "MIB")]
    pub data_memory: u64,

    /// Mebibytes that the shared head may take, with its projector, optimizer and messages
    #[arg(long, default_value_t = HEAD_MEMORY, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub head_memory: u64,

    /// Threads that the head computes on; 0 is one for each core. Results do not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(..=4096))]
    pub head_threads: u32,

    /// Seconds that the store of checkpoints may be in trouble before the job fails [default: it waits until the store is back]
    #[arg(long, value_name = "SECONDS")]
    pub store_patience: Option<u32>,

    /// Where the encoders compute: auto (CUDA cards in turn, one modality after the other, if the program can use them, else cpu), cpu, cuda or cuda:1
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// What may go on at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Schedule {
    /// All encoders compute at once
    Pipelined,
    /// One modality after the other
    Sequential,
}

impl From<Schedule> for ScheduleMode {
    fn from(schedule: Schedule) -> Self {
        match schedule {
            Schedule::Pipelined => Self::Pipelined,
            Schedule::Sequential => Self::Sequential,
        }
    }
}

/// Runs a job to its end.
///
/// # Errors
/// A bad job file or checkpoint, or a part of the system that fails.
pub async fn run(args: RunArgs, format: Format, stores: &StoreOptions) -> anyhow::Result<Exit> {
    let (mut spec, _) = check::load(&args.job, &args.set).or_exit(Exit::Usage)?;
    if let Some(schedule) = args.schedule {
        spec.schedule.mode = schedule.into();
    }
    // Before anything is written; workers open it themselves.
    args.device.open().or_exit(Exit::Usage)?;
    let resume = match args.resume.as_deref() {
        None => None,
        Some("") => Some(newest_run(&spec, &args.state, stores).await.or_exit(Exit::Usage)?),
        Some(given) => Some(given.to_owned()),
    };
    let (job, resume) = match resume {
        None => (fresh_id(&spec.name, &args.state)?, None),
        Some(url) => {
            let checkpoint = open(&url, stores).await.or_exit(Exit::Usage)?;
            (resumed_id(&checkpoint, &spec, &args.state, stores).await?, Some(checkpoint.url()))
        }
    };
    let mut cluster = Cluster::start(ClusterConfig {
        state: args.state.display().to_string(),
        modalities: spec.modalities.iter().map(|m| m.name.clone()).collect(),
        decode_threads: args.decode_threads.max(1),
        data_memory: args.data_memory << 20,
        head_memory: args.head_memory << 20,
        head_threads: args.head_threads as usize,
        stores: *stores,
        store_patience: args.store_patience.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into())),
        device: args.device,
    })
    .await?;
    let mut client = Client::of_own(&cluster.url())?;
    let request = submission::request(&spec, Some(job.to_string()), resume);
    let job = client.submit(request).await?;
    let job_folder = folder_of(&job, &spec, &args.state);
    let how_to_go_on = || {
        let file = quoted(&args.job.display().to_string());
        let set: String = args.set.iter().map(|change| format!(" --set {}", quoted(&change.to_string()))).collect();
        format!("antiphon run {file}{set}{} --resume {}", args.settings(), quoted(&job_folder))
    };
    let following =
        follow::follow(&mut client, &job, (&spec, 0), format, OnInterrupt::Stop(how_to_go_on()), Duration::ZERO);
    let followed = tokio::select! {
        followed = following => followed?,
        failed = cluster.failed() => {
            return Err(failed.err().unwrap_or_else(|| anyhow!("a part of the run ended before the job did")));
        }
    };
    if followed != Followed::Interrupted {
        cluster.stop().await;
    }
    Ok(followed.into())
}

/// `<name>-<date>-<time>` in UTC, with a number where that is taken. Where `state` is a folder, the job's own is made, so that
/// nobody else who begins in this second gets the same.
pub(super) fn fresh_id(name: &JobName, state: &Path) -> anyhow::Result<JobId> {
    let stamp = Utc::now().format("%Y%m%d-%H%M%S").to_string();
    let stem = format!("{}-{stamp}", stem(name));
    let candidates = std::iter::once(stem.clone()).chain((2..1000).map(|n| format!("{stem}-{n}")));
    let is_url = state.to_str().is_some_and(|state| state.contains("://"));
    for id in candidates {
        if is_url {
            return Ok(JobId::try_from(id)?);
        }
        let folder = state.join(&id);
        let made = std::fs::create_dir_all(state).and_then(|()| std::fs::create_dir(&folder));
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => {
                made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
                return Ok(JobId::try_from(id)?);
            }
        }
    }
    anyhow::bail!("a thousand runs began in this very second")
}

/// As much of a job's name as leaves room for a date, a time and a number.
fn stem(name: &JobName) -> &str {
    // Names are ASCII.
    let text = name.as_str();
    text[..text.len().min(42)].trim_end_matches('-')
}

/// The job that a checkpoint belongs to goes on under its own id, from its newest checkpoint; from an older one, or into
/// another folder, it becomes a job of its own.
async fn resumed_id(
    checkpoint: &Checkpoint,
    spec: &JobSpec,
    state: &Path,
    stores: &StoreOptions,
) -> anyhow::Result<JobId> {
    let job = checkpoint.manifest().job.clone();
    match open(&folder_of(job.as_str(), spec, state), stores).await {
        Ok(newest) if newest.url() == checkpoint.url() => Ok(job),
        _ => fresh_id(&spec.name, state),
    }
}

async fn open(url: &str, stores: &StoreOptions) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open_with(url, stores, &RetryPolicy::none()).await
}

/// The folder or URL of a job's state: `<state>/<id>`, or `<to>/jobs/<id>` in the store that the job names.
fn folder_of(job: &str, spec: &JobSpec, state: &Path) -> String {
    match &spec.checkpoints.to {
        None => state.join(job).display().to_string(),
        Some(to) => format!("{}/jobs/{job}", to.trim_end_matches('/')),
    }
}

/// The newest checkpoint of the run of this name that was started last and has one.
async fn newest_run(spec: &JobSpec, state: &Path, stores: &StoreOptions) -> anyhow::Result<String> {
    let none = || {
        let (name, place) = (&spec.name, folder_of("", spec, state));
        anyhow!("no run of `{name}` in {place} has a checkpoint; leave out --resume to start one, or name a checkpoint")
    };
    if spec.checkpoints.to.is_none() && !state.exists() {
        return Err(none());
    }
    let runs = stores.open(folder_of("", spec, state).trim_end_matches('/'))?;
    let listed = runs.objects().list_with_delimiter(Some(runs.prefix())).await;
    let listed = listed.with_context(|| format!("cannot list {}", runs.url()))?;
    let mut names: Vec<String> =
        listed.common_prefixes.iter().filter_map(|run| Some(run.filename()?.to_owned())).collect();
    names.retain(|name| name.starts_with(stem(&spec.name)));
    names.sort();
    for name in names.iter().rev() {
        let newest = CheckpointStore::new(&runs.child(name)).newest().await?;
        // The name of another job may begin like this one's.
        if let Some(checkpoint) = newest.filter(|c| c.manifest().specification["name"] == spec.name.as_str()) {
            return Ok(checkpoint.url());
        }
    }
    Err(none())
}

/// The text as a shell reads it back.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

impl RunArgs {
    /// The settings that are not the defaults, as they are typed.
    fn settings(&self) -> String {
        let mut text = String::new();
        if let Some(schedule) = self.schedule {
            text += &format!(" --schedule {}", ScheduleMode::from(schedule).as_str());
        }
        if self.state != Path::new(STATE) {
            text += &format!(" --state {}", quoted(&self.state.display().to_string()));
        }
        if self.decode_threads != DECODE_THREADS {
            text += &format!(" --decode-threads {}", self.decode_threads);
        }
        if self.data_memory != DATA_MEMORY {
            text += &format!(" --data-memory {}", self.data_memory);
        }
        if self.head_memory != HEAD_MEMORY {
            text += &format!(" --head-memory {}", self.head_memory);
        }
        if self.head_threads != 0 {
            text += &format!(" --head-threads {}", self.head_threads);
        }
        if let Some(seconds) = self.store_patience {
            text += &format!(" --store-patience {seconds}");
        }
        if self.device != DeviceChoice::default() {
            text += &format!(" --device {}", self.device);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_typed() {
        for (text, typed) in [("a/b-1.yaml", "a/b-1.yaml"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(quoted(text), typed);
        }
    }

    #[test]
    fn ids_are_new_and_fit_for_folders() {
        let state = tempfile::tempdir().expect("a folder");
        let name = JobName::try_from("x".repeat(63)).expect("a name");
        let first = fresh_id(&name, state.path()).expect("an id");
        assert!(first.as_str().len() <= 63);
        assert!(state.path().join(first.as_str()).is_dir(), "it is taken");
        assert_ne!(fresh_id(&name, state.path()).expect("another"), first);
    }
}
