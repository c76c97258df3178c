//! The processes of a job: a coordinator, and one worker per modality, each connected through a proxy.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;

use antiphon_core::ids::ModalityName;
use antiphon_model::device::DeviceChoice;
use anyhow::Context as _;

use super::child_process::{ANY_PORT, Log, Setting};
use super::fault::{Kind, Victim};
use super::lifeline::Lifeline;
use super::proxy::Proxy;
use super::restartable::Restartable;

/// Workers retry the coordinator for longer than any fault lasts.
const CONNECT_SECONDS: &str = "3600";

/// The settings of the processes of a job.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    /// Folder or URL of the jobs' state.
    pub(crate) state: &'a str,
    /// Folder of the processes' logs.
    pub(crate) logs: &'a Path,
    pub(crate) modalities: &'a [ModalityName],
    /// Seed of the store faults, if there are any.
    pub(crate) store: Option<u64>,
    pub(crate) device: DeviceChoice,
}

/// All processes. They are killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Processes {
    coordinator: Restartable,
    workers: BTreeMap<ModalityName, (Restartable, Proxy)>,
    url: String,
}

impl Processes {
    /// Starts the coordinator on a free port, which it keeps after a restart, and then the workers. Must be called on
    /// the main thread.
    pub(crate) async fn start(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let text = |arguments: &[&str]| arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>();
        let listening = |address: &str| {
            let state = setup.state;
            // With this setting, the connection of a stopped worker is closed after three seconds.
            let heartbeat = ["--heartbeat-seconds", "1", "--format", "json"];
            text(&[&["coordinator", "--listen", address, "--state", state], &heartbeat[..]].concat())
        };
        let start = |victim: Victim, arguments: Vec<String>| {
            let setting = Setting {
                name: format!("the {victim}"),
                arguments,
                environment: Vec::new(),
                core: None,
                lifeline: Lifeline::Killed,
                log: Log::in_file(setup.logs.join(format!("{}.log", victim.to_string().replace(' ', "-")))),
            };
            Restartable::start(victim, setting, setup.store)
        };
        let mut coordinator = start(Victim::Coordinator, listening(ANY_PORT))?;
        let address = coordinator.address().await?;
        coordinator.setting.arguments = listening(&address);
        let upstream = address.parse().with_context(|| {
            format!(
                "the coordinator listens on {address}, which is not an \
                 address"
            )
        })?;
        let mut workers = BTreeMap::new();
        for (number, modality) in setup.modalities.iter().enumerate() {
            let proxy = Proxy::start(upstream).await?;
            let (url, device) = (proxy.url(), setup.device.for_worker(number).to_string());
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
            let process = start(Victim::Worker(modality.clone()), arguments)?;
            workers.insert(modality.clone(), (process, proxy));
        }
        Ok(Self { coordinator, workers, url: format!("http://{address}") })
    }

    /// The URL of the coordinator, for clients.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts a fault, unless the process has another fault. Returns whether it started.
    pub(crate) async fn begin(&mut self, kind: Kind, victim: &Victim) -> anyhow::Result<bool> {
        match kind {
            Kind::Kill | Kind::Stop if !self.process(victim)?.is_up() => return Ok(false),
            Kind::Kill => self.process(victim)?.kill().await?,
            Kind::Stop => self.process(victim)?.stop()?,
            Kind::Disconnect | Kind::Stall | Kind::Refuse if self.connection(victim)?.is_disturbed() => {
                return Ok(false);
            }
            Kind::Disconnect => self.connection(victim)?.disconnect(),
            Kind::Stall => self.connection(victim)?.stall(true),
            Kind::Refuse => self.connection(victim)?.refuse(true),
        }
        Ok(true)
    }

    /// Ends a fault. Must be called on the main thread.
    pub(crate) fn end(&mut self, kind: Kind, victim: &Victim) -> anyhow::Result<()> {
        match kind {
            Kind::Kill => self.process(victim)?.start_if_ended(),
            Kind::Stop => self.process(victim)?.resume(),
            Kind::Disconnect => Ok(()),
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

    /// Processes that have exited by themselves since the last call.
    pub(crate) fn exited(&mut self) -> anyhow::Result<Vec<(Victim, ExitStatus)>> {
        let mut exited = Vec::new();
        for process in self.processes() {
            if let Some(status) = process.exited()? {
                exited.push((process.victim.clone(), status));
            }
        }
        Ok(exited)
    }

    /// Number of injected store faults.
    pub(crate) fn store_faults(&mut self) -> u64 {
        self.processes().map(|process| process.store_faults()).sum()
    }

    /// Kills all processes and waits until they have exited.
    pub(crate) async fn kill_all(&mut self) -> anyhow::Result<()> {
        for process in self.processes() {
            process.kill().await?;
        }
        Ok(())
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Restartable> {
        let workers = self.workers.values_mut().map(|(process, _)| process);
        std::iter::once(&mut self.coordinator).chain(workers)
    }

    fn process(&mut self, victim: &Victim) -> anyhow::Result<&mut Restartable> {
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
        worker.map(|(_, proxy)| proxy).with_context(|| format!("the {victim} has no proxy"))
    }
}
