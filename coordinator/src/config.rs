//! What a coordinator is told when it starts.

use std::time::Duration;

use antiphon_store::storage::StoreOptions;
use antiphon_transport::ListenArgs;
use clap::Args;

use crate::job::contract::ReplayBufferLimits;

/// Settings of a coordinator in this process.
#[derive(Debug, Clone)]
pub struct Config {
    /// URL or path of the folder that holds the folders of jobs whose specification names no store, and the journal.
    pub state: String,
    /// Whether jobs outlive this process.
    pub keep: Keep,
    /// Bytes that one gRPC message may have, either way. Large tensors are sent as several messages, so this does not
    /// bound the head.
    pub message_limit: usize,
    /// Bytes that the shared head of one job may take, with its projector and optimizer.
    pub head_memory: u64,
    /// Threads that heads compute on; 0 is one for each core.
    pub head_threads: usize,
    /// How stores are opened.
    pub stores: StoreOptions,
    /// For how long a failing store of checkpoints is retried before a job fails; [`Duration::MAX`] is without end.
    pub store_retry_timeout: Duration,
    /// How many jobs that are over stay known. Those that ended first are forgotten.
    pub keep_jobs: usize,
    /// The size of each job's replay buffer.
    pub replay_buffer: ReplayBufferLimits,
    /// How often a worker sends a heartbeat. Without one for three times as long it counts as gone.
    pub heartbeat: Duration,
    /// How long jobs have, at shutdown, to reach a turn boundary and write a checkpoint.
    pub stop_within: Duration,
    /// Whether to serve on an address that other machines can reach, although nothing is encrypted or authenticated.
    pub insecure_allow_remote: bool,
}

/// What outlives the process, beside checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: a job ends with the process, and several processes may share the folder of the state.
    Nothing,
    /// The jobs, in the journal: the next coordinator resumes them. One process has the folder of the state at a time.
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
    /// Silence after which a worker counts as gone.
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

/// For how long a failing store is retried: for so many seconds, or until it recovers.
fn retry_timeout(seconds: Option<u32>) -> Duration {
    seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into()))
}

impl CoordinatorArgs {
    /// The settings that these arguments give, and how stores are opened.
    #[must_use]
    pub fn config(&self, stores: StoreOptions) -> Config {
        // A state in memory is gone with the process anyway.
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
