//! A client that comes back, however often its coordinator goes away.

use std::time::Duration;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_proto::v1::SubmitJobRequest;
use anyhow::{Context as _, anyhow};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use crate::client::Client;
use crate::exit::{self, Exit};

/// The pause before it comes back.
const PAUSE: Duration = Duration::from_millis(250);
/// How long it waits for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How often in a row a coordinator may not know a job that was acknowledged: one that has just started may still be reading.
const UNKNOWN: u32 = 40;

/// How far the job has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) turn: u64,
    /// In all; 0 until it is known.
    pub(super) turns: u64,
}

/// Submits a job under an id of its own and follows it to its end.
#[derive(Debug)]
pub(super) struct Follower {
    url: String,
    request: SubmitJobRequest,
    standing: watch::Sender<Standing>,
    /// Whether the job may have been taken already.
    tried: bool,
    /// Whether the coordinator has acknowledged it.
    acknowledged: bool,
}

impl Follower {
    pub(super) fn new(url: String, request: SubmitJobRequest, standing: watch::Sender<Standing>) -> Self {
        Self { url, request, standing, tried: false, acknowledged: false }
    }

    /// How the job ended. What breaks on the way is tried again, without end.
    ///
    /// # Errors
    /// The job is refused, or was acknowledged and is not known any more.
    pub(super) async fn follow(mut self) -> anyhow::Result<Finished> {
        let mut unknown = 0;
        loop {
            match self.attempt().await {
                Ok(Some(finished)) => return Ok(finished),
                Ok(None) => unknown = 0,
                Err(error) if exit::of(&error) != Exit::Usage => unknown = 0,
                Err(error) if !self.acknowledged => return Err(error),
                Err(error) => {
                    unknown += 1;
                    if unknown == UNKNOWN {
                        return Err(error).context("the job was acknowledged, and is lost");
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One connection; None if it ended before the job did.
    async fn attempt(&mut self) -> anyhow::Result<Option<Finished>> {
        let mut client = Client::connect(&self.url, CONNECT).await?;
        let job = self.request.job.clone().context("a job that is submitted again needs an id")?;
        if !self.acknowledged {
            let submitted = client.submit(self.request.clone()).await;
            match submitted {
                Ok(_) => {}
                // The answer was lost, not the job.
                Err(error) if self.tried && error.to_string().contains("there is a job") => {}
                Err(error) => {
                    self.tried = true;
                    return Err(error);
                }
            }
            self.acknowledged = true;
        }
        let mut events = client.watch(&job, 0).await?;
        while let Some(event) = events.next().await {
            match event?.event {
                JobEvent::Started { turn, turns, .. } => {
                    self.standing.send_replace(Standing { turn: turn.0, turns });
                }
                JobEvent::Step(step) => self.standing.send_modify(|standing| standing.turn = step.turn.0),
                JobEvent::Finished(finished) => return Ok(Some(finished)),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// The job's end, or that nobody tells it any more.
pub(super) fn joined(ended: Result<anyhow::Result<Finished>, tokio::task::JoinError>) -> anyhow::Result<Finished> {
    ended.map_err(|error| anyhow!("following the job ended in a panic: {error}"))?
}
