//! A coordinator and one worker per modality in this process, talking gRPC over loopback as they would between machines.

use std::net::SocketAddr;
use std::time::Duration;

use antiphon_coordinator::config::Config;
use antiphon_coordinator::edge::server;
use antiphon_coordinator::registry::Coordinator;
use antiphon_core::ids::{ModalityName, WorkerId};
use antiphon_model::device::DeviceChoice;
use antiphon_store::storage::StoreOptions;
use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a store of checkpoints may be in trouble where nobody says how long.
pub const STORE_PATIENCE: Duration = Duration::from_secs(300);

/// How a cluster in one process is set up.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Folder or URL of the jobs' state.
    pub state: String,
    /// One worker for each.
    pub modalities: Vec<ModalityName>,
    /// Threads that decode samples, per worker.
    pub decode_threads: usize,
    /// Bytes of undecoded samples kept in memory, per worker and split.
    pub data_memory: u64,
    /// Bytes that the head of one job may take.
    pub head_memory: u64,
    /// Threads that heads compute on; 0 is one for each core.
    pub head_threads: usize,
    /// How stores are opened.
    pub stores: StoreOptions,
    /// How long the store of checkpoints may be in trouble before a job fails.
    pub store_patience: Duration,
    /// Where the encoders compute; `auto` spreads the workers over the cards there are.
    pub device: DeviceChoice,
}

/// A coordinator with its workers. They end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    shutdown: CancellationToken,
    parts: JoinSet<anyhow::Result<()>>,
}

impl Cluster {
    /// Listens on a free loopback port and starts all parts.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let mut parts = JoinSet::new();
        let coordinator = Coordinator::new(Config {
            state: config.state,
            head_memory: config.head_memory,
            head_threads: config.head_threads,
            stores: config.stores,
            store_patience: config.store_patience,
            ..Config::default()
        });
        let (stop, workers) = (shutdown.clone(), CancellationToken::new());
        let last = workers.clone().drop_guard();
        parts.spawn(async move {
            let served = server::serve_coordinator(coordinator, listener, stop).await;
            // Its jobs are over or at a boundary, for which they needed the workers.
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
                store_patience: config.store_patience,
                decode_threads: config.decode_threads,
                data_memory: config.data_memory,
                device: config.device.for_worker(number),
            };
            let stop = workers.clone();
            parts.spawn(async move { Ok(antiphon_worker::run(worker, stop).await?) });
        }
        Ok(Self { address, shutdown, parts })
    }

    /// Where the coordinator listens, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends when a part fails, which none does by itself.
    ///
    /// # Errors
    /// What the part ended with.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        match self.parts.join_next().await {
            Some(ended) => ended.context("a part of the cluster panicked")?,
            None => std::future::pending().await,
        }
    }

    /// Stops workers and coordinator in order.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while self.parts.join_next().await.is_some() {}
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
