//! A process that can be restarted after it has exited or was killed.

use std::process::ExitStatus;

use antiphon_store::faults;

use super::child_process::{ChildProcess, Setting};
use super::fault::{Victim, store_faults};

/// A process, running or not. It is killed when this value is dropped.
#[derive(Debug)]
pub(super) struct Restartable {
    pub(super) victim: Victim,
    pub(super) setting: Setting,
    /// Seed of the process's store faults, if it has any.
    store: Option<u64>,
    running: Option<ChildProcess>,
    starts: u64,
}

impl Restartable {
    /// Starts the process. Must be called on the main thread: the child is killed when that thread ends, even while it
    /// is stopped.
    pub(super) fn start(victim: Victim, setting: Setting, store: Option<u64>) -> anyhow::Result<Self> {
        let mut process = Self { victim, setting, store, running: None, starts: 0 };
        process.start_if_ended()?;
        Ok(process)
    }

    /// Starts the process unless it is running. Must be called on the main thread.
    pub(super) fn start_if_ended(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let faults = self.store.map(|seed| store_faults(seed, &self.victim, self.starts).to_string());
        self.setting.environment = faults.into_iter().map(|faults| (faults::VARIABLE, faults)).collect();
        self.running = Some(ChildProcess::spawn(&self.setting)?);
        self.starts += 1;
        Ok(())
    }

    /// Waits until the process listens, and returns its address.
    pub(super) async fn address(&mut self) -> anyhow::Result<String> {
        match &mut self.running {
            Some(running) => running.address().await,
            None => anyhow::bail!("{} is not running", self.setting.name),
        }
    }

    /// Whether the process is running and not stopped.
    pub(super) fn is_up(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_stopped())
    }

    /// Sends SIGKILL and waits until the process has exited.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(mut running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// Sends SIGSTOP.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        self.running.as_mut().map_or(Ok(()), ChildProcess::stop)
    }

    /// Sends SIGCONT.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.running.as_mut().map_or(Ok(()), ChildProcess::resume)
    }

    /// The exit status, if the process has exited by itself since the last call.
    pub(super) fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let exited = running.exit_status()?;
        if exited.is_some() {
            self.running = None;
        }
        Ok(exited)
    }

    /// Number of injected store faults since the process was first started.
    pub(super) fn store_faults(&self) -> u64 {
        self.setting.log.store_faults()
    }
}
