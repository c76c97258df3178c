//! Settings of a worker process.

use std::time::Duration;

use antiphon_core::ids::{BadName, ModalityName, WorkerId};
use antiphon_model::custom::Encoders;
use antiphon_model::device::DeviceChoice;
use antiphon_store::storage::StoreOptions;
use antiphon_transport::{ConnectArgs, ReconnectArgs};

use crate::name;

/// The arguments of `antiphon worker` and `antiphon-worker`.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    /// Modality whose encoder this worker trains, as named in the job file
    #[arg(long, env = "ANTIPHON_MODALITY", value_parser = parse_name::<ModalityName>)]
    pub modality: ModalityName,

    /// Which coordinator to register with
    #[command(flatten)]
    pub connect: ConnectArgs,

    /// Seconds to retry the first connection to the coordinator before giving up
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub connect_timeout: u64,

    /// Name of this worker, unique among live ones [default: modality, machine, process id, random digits]
    #[arg(long, env = "ANTIPHON_WORKER", value_name = "NAME", value_parser = parse_name::<WorkerId>)]
    pub name: Option<WorkerId>,

    /// What to do when the connection is lost
    #[command(flatten)]
    pub reconnect: ReconnectArgs,

    /// Seconds that the current step may take when the worker is asked to stop (SIGTERM, Ctrl-C)
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub grace: u64,

    /// Seconds to retry a store of checkpoints that fails, before the worker fails its job [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub store_retry_timeout: Option<u32>,

    /// Threads that decode samples ahead of training
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub decode_threads: usize,

    /// Memory for encoded samples per split, in MiB; the rest goes to a temporary file
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub data_memory: u64,

    /// Device of the encoder: auto (the first GPU if the program can use it, otherwise cpu), cpu, cuda or cuda:N
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

fn parse_name<N>(text: &str) -> Result<N, antiphon_core::ids::BadName>
where
    N: for<'a> TryFrom<&'a str, Error = antiphon_core::ids::BadName>,
{
    N::try_from(text)
}

/// The settings of a worker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Unique among registered workers.
    pub worker: WorkerId,
    /// The modality whose encoder the worker trains.
    pub modality: ModalityName,
    /// The URL of the coordinator, as `http://host:port`.
    pub coordinator: String,
    /// How long to retry the first connection to the coordinator.
    pub connect_timeout: Duration,
    /// How long to reconnect after a connection is lost.
    pub reconnect_timeout: Duration,
    /// How long the current step may take when the worker is asked to stop.
    pub grace: Duration,
    /// How stores of checkpoints are opened.
    pub stores: StoreOptions,
    /// How long a failing store of checkpoints is retried; [`Duration::MAX`] sets no limit.
    pub store_retry_timeout: Duration,
    /// Threads that decode samples.
    pub decode_threads: usize,
    /// The largest number of bytes of undecoded samples in memory, per split.
    pub data_memory: u64,
    /// The device that the encoder computes on.
    pub device: DeviceChoice,
    /// Encoders that this program registers besides the built-in ones.
    pub encoders: Encoders,
}

impl WorkerArgs {
    /// Fills in the defaults. The default name differs each time.
    ///
    /// # Errors
    /// If the default name is invalid.
    pub fn complete(self, stores: StoreOptions, encoders: Encoders) -> Result<Config, BadName> {
        let worker = match self.name {
            Some(name) => name,
            None => name::fresh(&self.modality)?,
        };
        Ok(Config {
            worker,
            modality: self.modality,
            connect_timeout: Duration::from_secs(self.connect_timeout),
            reconnect_timeout: self.reconnect.reconnect_timeout(),
            coordinator: self.connect.coordinator,
            grace: Duration::from_secs(self.grace),
            stores,
            store_retry_timeout: self
                .store_retry_timeout
                .map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into())),
            decode_threads: self.decode_threads.max(1),
            data_memory: self.data_memory << 20,
            device: self.device,
            encoders,
        })
    }
}
