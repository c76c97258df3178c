//! What a worker process is told.

use std::time::Duration;

use antiphon_core::ids::{BadName, ModalityName, WorkerId};
use antiphon_model::custom::Encoders;
use antiphon_model::device::DeviceChoice;
use antiphon_store::storage::StoreOptions;
use antiphon_transport::{ConnectArgs, ReconnectArgs};

use crate::name;

/// A worker's settings. `antiphon worker` and `antiphon-worker` read them from the same arguments.
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

    /// Seconds that the step at hand may take to finish when this worker is asked to stop (SIGTERM, Ctrl-C)
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub grace: u64,

    /// Seconds that the store of checkpoints may be in trouble before this worker gives up its try, and the job after three
    /// [default: it waits until the store is back]
    #[arg(long, value_name = "SECONDS")]
    pub store_patience: Option<u32>,

    /// Threads that decode samples ahead of training
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub decode_threads: usize,

    /// Mebibytes of undecoded samples kept in memory per split; what is beyond goes to a temporary file
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub data_memory: u64,

    /// Where the encoder computes: auto (the first CUDA card if the program can use one, else cpu), cpu, cuda or cuda:1
    #[arg(long, env = "ANTIPHON_DEVICE", default_value_t, value_name = "DEVICE")]
    pub device: DeviceChoice,
}

fn parse_name<N>(text: &str) -> Result<N, antiphon_core::ids::BadName>
where
    N: for<'a> TryFrom<&'a str, Error = antiphon_core::ids::BadName>,
{
    N::try_from(text)
}

/// A worker's settings, complete.
#[derive(Debug, Clone)]
pub struct Config {
    /// Unique among live workers.
    pub worker: WorkerId,
    /// Its pool.
    pub modality: ModalityName,
    /// `http://host:port`.
    pub coordinator: String,
    /// How long to go on trying to reach the coordinator.
    pub connect_timeout: Duration,
    /// How long to go on trying when a connection is lost.
    pub reconnect_timeout: Duration,
    /// How long the step at hand may take to finish when the worker is asked to stop.
    pub grace: Duration,
    /// How stores of checkpoints are opened.
    pub stores: StoreOptions,
    /// How long the store of checkpoints may be in trouble before a part of one is given up; [`Duration::MAX`] is for ever.
    pub store_patience: Duration,
    /// Threads that decode samples.
    pub decode_threads: usize,
    /// Bytes of undecoded samples kept in memory per split.
    pub data_memory: u64,
    /// Where the encoder computes.
    pub device: DeviceChoice,
    /// Encoders that this program registers besides the built-in ones.
    pub encoders: Encoders,
}

impl WorkerArgs {
    /// Fills in what was left out; the default name is another one each time.
    ///
    /// # Errors
    /// The drawn name is not one.
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
            store_patience: self.store_patience.map_or(Duration::MAX, |seconds| Duration::from_secs(seconds.into())),
            decode_threads: self.decode_threads.max(1),
            data_memory: self.data_memory << 20,
            device: self.device,
            encoders,
        })
    }
}
