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
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a failing store is retried unless the command says otherwise.
const STORE_RETRY_TIMEOUT: Duration = Duration::from_secs(300);

/// How a cluster in one process is set up.
#[derive(Debug, Clone)]
pub(crate) struct ClusterConfig {
    /// Folder or URL of the jobs' state.
    pub(crate) state: String,
    /// One worker for each of these.
    pub(crate) modalities: Vec<ModalityName>,
    /// Threads that decode samples, per worker.
    pub(crate) decode_threads: usize,
    /// Bytes of encoded samples in memory, per worker and split.
    pub(crate) data_memory: u64,
    /// Bytes that the head of one job may take.
    pub(crate) head_memory: u64,
    /// Threads that heads compute on; 0 is one for each core.
    pub(crate) head_threads: usize,
    /// How stores are opened.
    pub(crate) stores: StoreOptions,
    /// How long a failing store of checkpoints is retried before the job fails.
    pub(crate) store_retry_timeout: Duration,
    /// Device of the encoders; `auto` spreads the workers over all cards.
    pub(crate) device: DeviceChoice,
    /// Encoders that the program registers besides the built-in ones.
    pub(crate) encoders: Encoders,
}

impl ClusterConfig {
    /// A worker for each modality of the job, on the processor, with the memory that `antiphon run` gives by default.
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
}

impl Cluster {
    /// Listens on a free loopback port and starts coordinator and workers.
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
        tasks.spawn(async move {
            let served = server::serve_coordinator(coordinator, listener, stop).await;
            // Its jobs have ended or are at a turn boundary, for which they needed the workers.
            drop(last);
            Ok(served?)
        });
        for (number, modality) in config.modalities.into_iter().enumerate() {
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
            tasks.spawn(async move { Ok(antiphon_worker::run(worker, stop).await?) });
        }
        Ok(Self { address, shutdown, tasks })
    }

    /// Where the coordinator listens, as a URL.
    #[must_use]
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the coordinator or a worker ends, which none does by itself. Why it did.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Ok(()))) => anyhow!("a part of the cluster ended before the job did"),
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => anyhow!(error).context("a part of the cluster panicked"),
            None => std::future::pending().await,
        }
    }

    /// Stops workers and coordinator in order.
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
