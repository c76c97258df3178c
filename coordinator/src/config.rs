//! The settings of a coordinator.

use std::time::Duration;

use antiphon_store::storage::StoreOptions;
use antiphon_transport::ListenArgs;
use clap::Args;

use crate::job::contract::ReplayBufferLimits;

/// Settings of a coordinator in this process.
#[derive(Debug, Clone)]
pub struct Config {
    /// The URL or path of the folder of the journal, and of the folders of jobs whose specification names no store.
    pub state: String,
    /// What outlives this process.
    pub keep: Keep,
    /// The largest gRPC message in either direction, in bytes. Large tensors are sent as several messages, so this does
    /// not limit the head.
    pub message_limit: usize,
    /// The largest shared head of one job, with its projector and optimizer, in bytes.
    pub head_memory: u64,
    /// The number of threads that heads compute on. 0 means one per core.
    pub head_threads: usize,
    /// Options for opening stores.
    pub stores: StoreOptions,
    /// How long a failing store of checkpoints is retried before a job fails. [`Duration::MAX`] means no limit.
    pub store_retry_timeout: Duration,
    /// The number of finished jobs that are retained. The ones that ended first are removed.
    pub keep_jobs: usize,
    /// The size of each job's replay buffer.
    pub replay_buffer: ReplayBufferLimits,
    /// The interval between a worker's heartbeats. A worker without a heartbeat for three intervals counts as lost.
    pub heartbeat: Duration,
    /// How long jobs have at shutdown to reach a turn boundary and write a checkpoint.
    pub stop_within: Duration,
    /// Whether to serve on an address that other machines can reach, although nothing is encrypted or authenticated.
    pub insecure_allow_remote: bool,
}

/// What outlives the process, besides checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing. Jobs end with the process, and several processes may share the folder of the state.
    Nothing,
    /// The jobs, in the journal. The next coordinator resumes them. Only one process uses the folder of the state at a
    /// time.
    Jobs,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "./antiphon-runs".to_owned(),
            keep: Keep::Nothing,
            message_limit: antiphon_proto::MESSAGE_LIMIT,
            head_memory: 4096 << 20,
            head_threads: 0,
            stores: StoreOptions::default(),
            store_retry_timeout: Duration::MAX,
            keep_jobs: 1000,
            replay_buffer: ReplayBufferLimits::default(),
            heartbeat: Duration::from_secs(5),
            stop_within: Duration::from_secs(60),
            insecure_allow_remote: false,
        }
    }
}

impl Config {
    /// The time without a heartbeat after which a worker counts as lost.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.heartbeat * 3
    }
}

/// The command line of a coordinator, shared by `antiphon coordinator` and `antiphon-coordinator`.
#[derive(Debug, Clone, Args)]
pub struct CoordinatorArgs {
    /// Where to listen
    #[command(flatten)]
    pub network: ListenArgs,
    /// Folder or URL of the coordinator's state: a path, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or
    /// az://CONTAINER/PREFIX
    ///
    /// It holds what the coordinator knows of its jobs (specifications, events, how they ended, in the folder
    /// `_coordinator`) and a folder of checkpoints for each job that names no other place. A coordinator that is
    /// restarted on it resumes its jobs from their newest checkpoints; a coordinator that still runs on it elsewhere
    /// stops.
    #[arg(long, env = "ANTIPHON_STATE", default_value = "./antiphon-runs")]
    pub state: String,
    /// Mebibytes that the shared head of one job may take, with its projector and optimizer; one of 20,000 classes by
    /// 4096 takes 1,315
    #[arg(long, default_value_t = 4096, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub head_memory: u64,
    /// Threads that the heads of all jobs compute on; 0 is one for each core. Results do not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(..=4096))]
    pub head_threads: u32,
    /// Mebibytes of memory for each job's replay buffer: the heads that it has granted since its last checkpoint, which
    /// a replacement worker replays
    #[arg(long, default_value_t = 512, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub replay_memory: u64,
    /// Mebibytes of a temporary file (in TMPDIR) for heads that do not fit; before it is full a checkpoint is written
    /// early
    #[arg(long, default_value_t = 16_384, value_name = "MIB", value_parser = clap::value_parser!(u64).range(..=1 << 40))]
    pub replay_disk: u64,
    /// Seconds for which a failing store of checkpoints is retried before a job fails [default: until the store
    /// recovers]
    #[arg(long, value_name = "SECONDS")]
    pub store_retry_timeout: Option<u32>,
    /// How many jobs that are over stay known, the last ones to end. Specification, events and end of older ones are
    /// removed from the state, and their ids are free. Their checkpoints stay
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep_jobs: u32,
    /// Seconds between a worker's heartbeats, 1 to 3600; without one for three times as long the worker counts as gone
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub heartbeat_seconds: u32,
    /// Seconds that jobs have at shutdown to reach a turn boundary and write a checkpoint
    #[arg(long, default_value_t = 60)]
    pub stop_within_seconds: u32,
}

/// How long a failing store is retried: for this many seconds, or until it recovers.
fn retry_timeout(seconds: Option<u32>) -> Duration {
    seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into()))
}

impl CoordinatorArgs {
    /// The settings of these arguments, with these options for stores.
    #[must_use]
    pub fn config(&self, stores: StoreOptions) -> Config {
        // A state in memory ends with the process anyway.
        let keep = if self.state.starts_with("memory://") { Keep::Nothing } else { Keep::Jobs };
        Config {
            state: self.state.clone(),
            keep,
            head_memory: self.head_memory << 20,
            head_threads: self.head_threads as usize,
            stores,
            store_retry_timeout: retry_timeout(self.store_retry_timeout),
            keep_jobs: self.keep_jobs as usize,
            replay_buffer: ReplayBufferLimits { memory: self.replay_memory << 20, disk: self.replay_disk << 20 },
            heartbeat: Duration::from_secs(self.heartbeat_seconds.into()),
            stop_within: Duration::from_secs(self.stop_within_seconds.into()),
            insecure_allow_remote: self.network.insecure_allow_remote,
            ..Config::default()
        }
    }
}
