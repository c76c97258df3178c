//! A process that is started again after it has ended or was killed.

use std::process::ExitStatus;

use antiphon_store::faults;

use super::child_process::{ChildProcess, Setting};
use super::fault::{Victim, store_faults};

/// A process, running or not. It ends with this value.
#[derive(Debug)]
pub(super) struct Restartable {
    pub(super) victim: Victim,
    pub(super) setting: Setting,
    /// Seed of the faults of its store, if it has any.
    store: Option<u64>,
    running: Option<ChildProcess>,
    starts: u64,
}

impl Restartable {
    /// Starts it. To be called on the main thread, with whose end the child ends even where it is stopped.
    pub(super) fn start(victim: Victim, setting: Setting, store: Option<u64>) -> anyhow::Result<Self> {
        let mut process = Self { victim, setting, store, running: None, starts: 0 };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it if it is not running. To be called on the main thread.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let faults = self.store.map(|seed| store_faults(seed, &self.victim, self.starts).to_string());
        self.setting.environment = faults.into_iter().map(|faults| (faults::VARIABLE, faults)).collect();
        self.running = Some(ChildProcess::spawn(&self.setting)?);
        self.starts += 1;
        Ok(())
    }

    /// Where it listens, once it does.
    pub(super) async fn address(&mut self) -> anyhow::Result<String> {
        match &mut self.running {
            Some(running) => running.address().await,
            None => anyhow::bail!("{} is not running", self.setting.name),
        }
    }

    /// Whether it is there and computes.
    pub(super) fn is_up(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_stopped())
    }

    /// SIGKILL; it is gone when this returns.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        match self.running.take() {
            Some(mut running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// SIGSTOP.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        self.running.as_mut().map_or(Ok(()), ChildProcess::stop)
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.running.as_mut().map_or(Ok(()), ChildProcess::resume)
    }

    /// How it ended, if it has since the last time, and was not killed here.
    pub(super) fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(running) = &mut self.running else { return Ok(None) };
        let exited = running.exit_status()?;
        if exited.is_some() {
            self.running = None;
        }
        Ok(exited)
    }

    /// Requests to its store that failed on purpose, since it was first started.
    pub(super) fn store_faults(&self) -> u64 {
        self.setting.log.store_faults()
    }
}
