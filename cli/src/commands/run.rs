//! `antiphon run JOB.yaml`: a coordinator and one worker per modality in this process, over gRPC on the loopback
//! interface.

use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon_core::event::FinalState;
use antiphon_core::ids::JobId;
use antiphon_core::spec::{JobSpec, ScheduleMode};
use antiphon_model::device::DeviceChoice;
use antiphon_transport::ReconnectPolicy;

use super::damage::{find_damage, with_undamaged};
use super::shared_args::{JobArgs, Schedule};
use crate::client::{self, Client};
use crate::context::Context;
use crate::exit::{Exit, OrExit as _};
use crate::follow::{self, Followed, OnInterrupt};
use crate::lab::cluster::{Cluster, ClusterConfig};
use crate::output::{self, program, quoted};
use crate::runs::{advised, folder_of, fresh_id, newest_run, open, resumed_id};

const STATE: &str = "./antiphon-runs";
const DECODE_THREADS: usize = 1;
const DATA_MEMORY: u64 = 256;
const HEAD_MEMORY: u64 = 4096;

/// Train a job on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon run examples/spoken-digits.yaml
  antiphon run job.yaml --set head.projection=off --set schedule.epochs=5
  antiphon run job.yaml --resume                  the newest run of that name
  antiphon run job.yaml --resume antiphon-runs/JOB/checkpoints/00000300

Ctrl-C stops the job at the next turn boundary, writes a checkpoint and prints the command that resumes the job. A second Ctrl-C ends \
the program at once.

A job that has reached its length has nothing left to train: resume it with a larger schedule.epochs or schedule.turns.")]
pub struct RunArgs {
    /// The job file
    #[command(flatten)]
    pub job: JobArgs,

    /// Whether encoders compute at the same time; overrides `schedule.mode` of the job
    #[arg(long, value_name = "MODE")]
    pub schedule: Option<Schedule>,

    /// Resume from a checkpoint: its folder or URL, the folder of a run, or no value for the newest run with this job's name
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, default_missing_value = "")]
    pub resume: Option<String>,

    /// Folder for the state of runs, unless the job sets `checkpoints.to`
    #[arg(long, env = "ANTIPHON_STATE", default_value = STATE, value_name = "DIR")]
    pub state: PathBuf,

    /// Threads per modality that decode samples ahead of training
    #[arg(long, default_value_t = DECODE_THREADS, value_name = "N")]
    pub decode_threads: usize,

    /// Memory for encoded samples, in MiB per modality and split; the rest goes to a temporary file
    #[arg(long, default_value_t = DATA_MEMORY, value_name = "MIB")]
    pub data_memory: u64,

    /// Memory limit of the shared head with its projector, optimizer and messages, in MiB
    #[arg(long, default_value_t = HEAD_MEMORY, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub head_memory: u64,

    /// Threads that compute the head, 0 for one per core; results do not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(..=4096))]
    pub head_threads: u32,

    /// Seconds to retry a store of checkpoints that fails, before the job fails [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub store_retry_timeout: Option<u32>,

    /// Device of the encoders: auto (GPUs in turn if the program can use them, otherwise cpu), cpu, cuda or
    /// cuda:N
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// Runs the command: trains a job to its end.
///
/// # Errors
/// An invalid job file or checkpoint, or a coordinator or worker that fails.
pub async fn run(args: RunArgs, context: &Context) -> anyhow::Result<Exit> {
    let mut spec = args.job.load(&context.encoders)?;
    if let Some(schedule) = args.schedule {
        spec.schedule.mode = schedule.into();
    }
    // An unavailable device is reported before anything is written. Workers open the device themselves.
    args.device.open().or_exit(Exit::Usage)?;
    let resume_from = |checkpoint: &str| format!("resume from it with `{}`", args.resume_command(checkpoint));
    let (job, resume) = match args.resume.as_deref() {
        None => (fresh_id(&spec.name, &args.state, "--state").or_exit(Exit::Usage)?, None),
        Some(given) => match resumed(given, &spec, &args.state, context).await {
            Ok((job, checkpoint)) => (job, Some(checkpoint)),
            Err(error) => return Err(with_undamaged(error, given, &context.stores, resume_from).await),
        },
    };
    let mut cluster = Cluster::start(args.cluster(&spec, context)).await?;
    let client = Client::to_own_process(&cluster.url())?;
    let job = match (client.submit(client::request(&spec, Some(job.to_string()), resume.clone())).await, &resume) {
        (Ok(job), _) => job,
        (Err(error), None) => return Err(error.into()),
        (Err(error), Some(url)) => return Err(with_undamaged(error.into(), url, &context.stores, resume_from).await),
    };
    let job_folder = folder_of(&job, &spec, &args.state);
    let on_interrupt = OnInterrupt::Stop(args.resume_command(&job_folder));
    let following = follow::follow(&client, &job, (&spec, 0), context.format, on_interrupt, ReconnectPolicy::ONCE);
    let followed = tokio::select! {
        followed = following => followed?,
        error = cluster.failed() => return Err(error),
    };
    if followed != Followed::Interrupted {
        cluster.stop().await;
    }
    // The job may have failed because a worker found damage.
    if followed == Followed::ToItsEnd(FinalState::Failed)
        && let Some(url) = &resume
        && let Some(damaged) = find_damage(url, &context.stores).await
    {
        output::complain(&format!("checkpoint `{url}` is damaged; {}", damaged.advice(resume_from)))?;
    }
    Ok(followed.into())
}

/// The id under which a job resumes, and the URL of the checkpoint that it resumes from: the given one, or else the
/// newest.
async fn resumed(given: &str, spec: &JobSpec, state: &Path, context: &Context) -> anyhow::Result<(JobId, String)> {
    let url = match given {
        "" => newest_run(spec, state, &context.stores).await.or_exit(Exit::Usage)?,
        given => given.to_owned(),
    };
    let checkpoint = open(&url, &context.stores).await.map_err(advised).or_exit(Exit::Usage)?;
    Ok((resumed_id(&checkpoint, spec, state, &context.stores).await?, checkpoint.url()))
}

impl RunArgs {
    fn cluster(&self, spec: &JobSpec, context: &Context) -> ClusterConfig {
        let seconds = self.store_retry_timeout.map(|seconds| Duration::from_secs(seconds.into()));
        ClusterConfig {
            state: self.state.display().to_string(),
            modalities: spec.modalities.iter().map(|modality| modality.name.clone()).collect(),
            decode_threads: self.decode_threads.max(1),
            data_memory: self.data_memory << 20,
            head_memory: self.head_memory << 20,
            head_threads: self.head_threads as usize,
            stores: context.stores,
            store_retry_timeout: seconds.unwrap_or(Duration::MAX),
            device: self.device,
            encoders: context.encoders.clone(),
        }
    }

    /// The command that resumes the job from `folder`: a checkpoint, or a run for its newest checkpoint.
    fn resume_command(&self, folder: &str) -> String {
        format!("{} run {}{} --resume {}", program(), self.job.typed(), self.settings(), quoted(folder))
    }

    /// The options that differ from their defaults, as they are typed.
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
        if let Some(seconds) = self.store_retry_timeout {
            text += &format!(" --store-retry-timeout {seconds}");
        }
        if self.device != DeviceChoice::default() {
            text += &format!(" --device {}", self.device);
        }
        text
    }
}
