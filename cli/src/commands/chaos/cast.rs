//! The processes of a run: a coordinator, and one worker per modality behind a connection of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use antiphon_core::ids::ModalityName;
use antiphon_model::device::DeviceChoice;
use anyhow::{Context as _, anyhow};

use super::plan::{Kind, Victim};
use super::process::{Process, Setting};
use super::proxy::Proxy;

/// How long the coordinator may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Workers wait for a coordinator that is down, for longer than any is.
const CONNECT_SECONDS: &str = "3600";

/// What a cast is made of.
#[derive(Debug)]
pub(super) struct Casting<'a> {
    /// Folder or URL of the jobs' state.
    pub(super) state: &'a str,
    /// Folder of the processes' logs.
    pub(super) logs: &'a Path,
    pub(super) modalities: &'a [ModalityName],
    /// Seed of the faults of stores, if they have any.
    pub(super) store: Option<u64>,
    pub(super) device: DeviceChoice,
}

/// All processes. They end with this value.
#[derive(Debug)]
pub(super) struct Cast {
    coordinator: Process,
    workers: BTreeMap<ModalityName, (Process, Proxy)>,
    url: String,
}

impl Cast {
    /// Starts the coordinator on a free port, which stays its own, and then the workers. To be called on the main thread.
    pub(super) async fn start(casting: &Casting<'_>) -> anyhow::Result<Self> {
        let text = |arguments: &[&str]| arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>();
        let listening = |address: &str| {
            let state = casting.state;
            // A worker that is stopped counts as gone after three seconds.
            let heartbeat = ["--heartbeat-seconds", "1", "--format", "json"];
            text(&[&["coordinator", "--listen", address, "--state", state], &heartbeat[..]].concat())
        };
        let setting = |victim: Victim, arguments: Vec<String>| {
            let log = casting.logs.join(format!("{}.log", victim.to_string().replace(' ', "-")));
            Setting { victim, arguments, log, store: casting.store }
        };
        let mut coordinator = Process::start(setting(Victim::Coordinator, listening("127.0.0.1:0")))?;
        let address = listens(&mut coordinator).await?;
        coordinator.setting.arguments = listening(&address);
        let upstream = address.parse().with_context(|| format!("the coordinator says it listens on {address}"))?;
        let mut workers = BTreeMap::new();
        for (number, modality) in casting.modalities.iter().enumerate() {
            let proxy = Proxy::start(upstream).await?;
            let (url, device) = (proxy.url(), casting.device.for_worker(number).to_string());
            let arguments = text(&[
                "worker",
                "--modality",
                modality.as_str(),
                "--coordinator",
                &url,
                "--connect-timeout",
                CONNECT_SECONDS,
                "--device",
                &device,
                "--format",
                "json",
            ]);
            let process = Process::start(setting(Victim::Worker(modality.clone()), arguments))?;
            workers.insert(modality.clone(), (process, proxy));
        }
        Ok(Self { coordinator, workers, url: format!("http://{address}") })
    }

    /// Where clients find the coordinator.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Begins a fault, if its victim is well; whether it did.
    pub(super) async fn begin(&mut self, kind: Kind, victim: &Victim) -> anyhow::Result<bool> {
        match kind {
            Kind::Kill | Kind::Stop if !self.process(victim)?.is_up() => return Ok(false),
            Kind::Kill => self.process(victim)?.kill().await?,
            Kind::Stop => self.process(victim)?.stop()?,
            Kind::Cut | Kind::Stall | Kind::Refuse if self.connection(victim)?.is_in_trouble() => return Ok(false),
            Kind::Cut => self.connection(victim)?.cut(),
            Kind::Stall => self.connection(victim)?.stall(true),
            Kind::Refuse => self.connection(victim)?.refuse(true),
        }
        Ok(true)
    }

    /// Ends a fault. To be called on the main thread.
    pub(super) fn end(&mut self, kind: Kind, victim: &Victim) -> anyhow::Result<()> {
        match kind {
            Kind::Kill => self.process(victim)?.start_again(),
            Kind::Stop => self.process(victim)?.go_on(),
            Kind::Cut => Ok(()),
            Kind::Stall => {
                self.connection(victim)?.stall(false);
                Ok(())
            }
            Kind::Refuse => {
                self.connection(victim)?.refuse(false);
                Ok(())
            }
        }
    }

    /// Processes that have ended by themselves since the last time.
    pub(super) fn ended(&mut self) -> anyhow::Result<Vec<(Victim, ExitStatus)>> {
        let mut ended = Vec::new();
        for process in self.processes() {
            if let Some(status) = process.ended()? {
                ended.push((process.setting.victim.clone(), status));
            }
        }
        Ok(ended)
    }

    /// Requests to stores that failed on purpose.
    pub(super) fn store_faults(&mut self) -> u64 {
        self.processes().map(|process| process.store_faults()).sum()
    }

    /// Ends all processes; they are gone when this returns.
    pub(super) async fn dismiss(&mut self) -> anyhow::Result<()> {
        for process in self.processes() {
            process.kill().await?;
        }
        Ok(())
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let workers = self.workers.values_mut().map(|(process, _)| process);
        std::iter::once(&mut self.coordinator).chain(workers)
    }

    fn process(&mut self, victim: &Victim) -> anyhow::Result<&mut Process> {
        match victim {
            Victim::Coordinator => Ok(&mut self.coordinator),
            Victim::Worker(modality) => {
                let worker = self.workers.get_mut(modality).map(|(process, _)| process);
                worker.with_context(|| format!("there is no worker {modality}"))
            }
        }
    }

    fn connection(&mut self, victim: &Victim) -> anyhow::Result<&mut Proxy> {
        let worker = match victim {
            Victim::Coordinator => None,
            Victim::Worker(modality) => self.workers.get_mut(modality),
        };
        worker.map(|(_, proxy)| proxy).with_context(|| format!("the {victim} has no connection of its own"))
    }
}

/// The address of a coordinator that has just been started.
async fn listens(coordinator: &mut Process) -> anyhow::Result<String> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout(Duration::from_millis(50), coordinator.address()).await {
            Ok(address) => return address,
            Err(_) if tokio::time::Instant::now() >= deadline => {
                return Err(anyhow!("the coordinator does not say that it listens"));
            }
            Err(_) => {}
        }
        if let Some(status) = coordinator.ended()? {
            let log = coordinator.setting.log.display();
            return Err(anyhow!("the coordinator ended before it listened ({status}); see {log}"));
        }
    }
}
