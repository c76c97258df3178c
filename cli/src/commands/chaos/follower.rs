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

/// The pause before a reconnect.
const PAUSE: Duration = Duration::from_millis(250);
/// How many times in a row a coordinator may report an accepted job as unknown. After a restart it may still be
/// recovering.
const UNKNOWN: u32 = 40;

/// The progress of the job.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JobProgress {
    pub(super) turn: u64,
    /// Total number of turns; 0 until it is known.
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

    /// Submits and follows the job until it ends, and retries failures indefinitely.
    ///
    /// # Errors
    /// The coordinator refuses the job, or accepted it and no longer knows it.
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

/// Updates the progress of the job with an event.
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

/// Turns a panic of the task into an error.
pub(super) fn joined(ended: Result<anyhow::Result<Finished>, tokio::task::JoinError>) -> anyhow::Result<Finished> {
    ended.map_err(|error| anyhow!("the task that follows the job panicked: {error}"))?
}
