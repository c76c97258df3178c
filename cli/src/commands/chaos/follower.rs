//! A client that comes back, however often its coordinator goes away.

use std::time::Duration;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_proto::v1::SubmitJobRequest;
use anyhow::{Context as _, anyhow};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use crate::client::Client;
use crate::exit::{self, Exit};

/// The pause before it comes back.
const PAUSE: Duration = Duration::from_millis(250);
/// How often in a row a coordinator may not know a job that was acknowledged: one that has just started may still be reading.
const UNKNOWN: u32 = 40;

/// How far the job has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) turn: u64,
    /// In all; 0 until it is known.
    pub(super) turns: u64,
    /// When it last took a step.
    pub(super) stepped: Option<Instant>,
}

/// Submits a job under an id of its own and follows it to its end.
#[derive(Debug)]
pub(super) struct Follower {
    client: Client,
    request: SubmitJobRequest,
    standing: watch::Sender<Standing>,
    /// Whether the coordinator has acknowledged it.
    acknowledged: bool,
    /// The number of the last event that came.
    seen: u64,
}

impl Follower {
    pub(super) fn new(client: Client, request: SubmitJobRequest, standing: watch::Sender<Standing>) -> Self {
        Self { client, request, standing, acknowledged: false, seen: 0 }
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
        let job = self.request.job.clone().context("a job that is followed needs an id")?;
        if !self.acknowledged {
            self.client.submit(self.request.clone()).await?;
            self.acknowledged = true;
        }
        let mut events = self.client.watch(&job, self.seen).await?;
        while let Some(watched) = events.next().await {
            let watched = watched?;
            self.seen = watched.number;
            match watched.event {
                JobEvent::Started { turn, turns, .. } => {
                    self.standing.send_modify(|standing| (standing.turn, standing.turns) = (turn.0, turns));
                }
                JobEvent::Step(step) => self.standing.send_modify(|standing| {
                    (standing.turn, standing.stepped) = (step.turn.0, Some(Instant::now()));
                }),
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
