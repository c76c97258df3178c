//! A coordinator and one worker per modality in this process, connected by gRPC over the loopback interface.

use std::net::SocketAddr;
use std::time::Duration;

use antiphon_coordinator::config::Config;
use antiphon_coordinator::edge::server;
use antiphon_coordinator::registry::Coordinator;
use antiphon_core::ids::{ModalityName, WorkerId};
use antiphon_core::spec::JobSpec;
use antiphon_model::custom::Encoders;
use antiphon_model::device::DeviceChoice;
use antiphon_store::storage::StoreOptions;
use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Default time for which a failing store is retried.
const STORE_RETRY_TIMEOUT: Duration = Duration::from_secs(300);

/// The settings of a cluster in one process.
#[derive(Debug, Clone)]
pub(crate) struct ClusterConfig {
    /// Folder or URL of the jobs' state.
    pub(crate) state: String,
    /// Modalities; each gets one worker.
    pub(crate) modalities: Vec<ModalityName>,
    /// Threads that decode samples, per worker.
    pub(crate) decode_threads: usize,
    /// Memory for encoded samples in bytes, per worker and split.
    pub(crate) data_memory: u64,
    /// Memory limit of the head of one job, in bytes.
    pub(crate) head_memory: u64,
    /// Threads that compute heads; 0 means one per core.
    pub(crate) head_threads: usize,
    /// Options for opening stores.
    pub(crate) stores: StoreOptions,
    /// Time for which a failing store of checkpoints is retried before the job fails.
    pub(crate) store_retry_timeout: Duration,
    /// Device of the encoders; `auto` spreads the workers over all GPUs.
    pub(crate) device: DeviceChoice,
    /// Encoders that the program registers besides the built-in ones.
    pub(crate) encoders: Encoders,
}

impl ClusterConfig {
    /// One worker for each modality of the job, on the CPU, with the default memory limits of `antiphon run`.
    #[must_use]
    pub(crate) fn for_job(spec: &JobSpec, state: String) -> Self {
        Self {
            state,
            modalities: spec.modalities.iter().map(|modality| modality.name.clone()).collect(),
            decode_threads: 1,
            data_memory: 256 << 20,
            head_memory: 4096 << 20,
            head_threads: 0,
            stores: StoreOptions::default(),
            store_retry_timeout: STORE_RETRY_TIMEOUT,
            device: DeviceChoice::Cpu,
            encoders: Encoders::new(),
        }
    }
}

/// A coordinator with its workers. They end when this value is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    address: SocketAddr,
    shutdown: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    /// The name of each task, for messages.
    names: Vec<(Id, String)>,
}

impl Cluster {
    /// Starts coordinator and workers. The coordinator listens on a free loopback port.
    ///
    /// # Errors
    /// No port is free.
    pub(crate) async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let coordinator = Coordinator::new(Config {
            state: config.state,
            head_memory: config.head_memory,
            head_threads: config.head_threads,
            stores: config.stores,
            store_retry_timeout: config.store_retry_timeout,
            ..Config::default()
        });
        let (stop, workers) = (shutdown.clone(), CancellationToken::new());
        let last = workers.clone().drop_guard();
        let serving = tasks.spawn(async move {
            let served = server::serve_coordinator(coordinator, listener, stop).await;
            // Jobs need workers until they have ended or reached a turn boundary, which they now have.
            drop(last);
            Ok(served?)
        });
        let mut names = vec![(serving.id(), "the coordinator".to_owned())];
        for (number, modality) in config.modalities.into_iter().enumerate() {
            let name = format!("the {modality} worker");
            let worker = antiphon_worker::Config {
                worker: WorkerId::try_from(format!("{modality}-local"))
                    .or_else(|_| WorkerId::try_from(modality.as_str()))?,
                modality,
                coordinator: format!("http://{address}"),
                connect_timeout: Duration::from_secs(10),
                reconnect_timeout: Duration::ZERO,
                grace: Duration::ZERO,
                stores: config.stores,
                store_retry_timeout: config.store_retry_timeout,
                decode_threads: config.decode_threads,
                data_memory: config.data_memory,
                device: config.device.for_worker(number),
                encoders: config.encoders.clone(),
            };
            let stop = workers.clone();
            let working = tasks.spawn(async move { Ok(antiphon_worker::run(worker, stop).await?) });
            names.push((working.id(), name));
        }
        Ok(Self { address, shutdown, tasks, names })
    }

    /// The URL of the coordinator.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the coordinator or a worker ends, and returns the reason as an error: neither ends by itself.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, Ok(())))) => anyhow!("{} ended before the job did", self.name(id)),
            Some(Ok((_, Err(error)))) => error,
            Some(Err(error)) => {
                let name = self.name(error.id());
                anyhow!(error).context(format!("{name} panicked"))
            }
            None => std::future::pending().await,
        }
    }

    fn name(&self, task: Id) -> &str {
        let name = self.names.iter().find(|(id, _)| *id == task);
        name.map_or("the coordinator or a worker", |(_, name)| name)
    }

    /// Stops first the workers, then the coordinator.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
