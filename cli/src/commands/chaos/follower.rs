//! A client that reconnects, however often its coordinator dies.

use std::time::Duration;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_transport::ReconnectPolicy;
use anyhow::{Context as _, anyhow};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::{Client, Events, Silent, Submission, Watched};
use crate::exit::Exit;

/// The pause before it reconnects.
const PAUSE: Duration = Duration::from_millis(250);
/// How often in a row a coordinator may not know a job that it accepted. One that has just started may still be recovering.
const UNKNOWN: u32 = 40;

/// How far the job has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JobProgress {
    pub(super) turn: u64,
    /// Turns in all; 0 until they are known.
    pub(super) turns: u64,
    /// The time of its last step.
    pub(super) stepped: Option<Instant>,
}

/// Submits a job under its own id and follows it to its end.
#[derive(Debug)]
pub(super) struct Follower {
    client: Client,
    request: SubmitJobRequest,
    progress: watch::Sender<JobProgress>,
}

impl Follower {
    pub(super) fn new(client: Client, request: SubmitJobRequest, progress: watch::Sender<JobProgress>) -> Self {
        Self { client, request, progress }
    }

    /// How the job ended. Whatever fails is tried again, without end.
    ///
    /// # Errors
    /// The job is refused, or was accepted and is no longer known.
    pub(super) async fn follow(self) -> anyhow::Result<Finished> {
        let policy = ReconnectPolicy::FOREVER.every(PAUSE);
        let mut submission = Submission::new(self.client.clone(), self.request, policy);
        let job = loop {
            match submission.accepted(&mut Silent).await {
                Ok(job) => break job,
                Err(error) if error.exit() == Exit::Usage => return Err(error.into()),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let mut events = Events::new(self.client, &job, 0, policy);
        let mut unknown = 0;
        loop {
            match events.next(&mut Silent).await {
                Ok(Watched { event: JobEvent::Finished(finished), .. }) => return Ok(finished),
                Ok(watched) => {
                    unknown = 0;
                    note(&self.progress, &watched.event);
                }
                Err(error) => {
                    unknown = if error.exit() == Exit::Usage { unknown + 1 } else { 0 };
                    if unknown == UNKNOWN {
                        return Err(error).context("the coordinator accepted the job and no longer knows it");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Notes how far the job has come.
fn note(progress: &watch::Sender<JobProgress>, event: &JobEvent) {
    match event {
        JobEvent::Started { turn, turns, .. } => {
            progress.send_modify(|progress| (progress.turn, progress.turns) = (turn.0, *turns));
        }
        JobEvent::Step(step) => progress.send_modify(|progress| {
            (progress.turn, progress.stepped) = (step.turn.0, Some(Instant::now()));
        }),
        _ => {}
    }
}

/// How the job ended, or that following it panicked.
pub(super) fn joined(ended: Result<anyhow::Result<Finished>, tokio::task::JoinError>) -> anyhow::Result<Finished> {
    ended.map_err(|error| anyhow!("following the job ended in a panic: {error}"))?
}
