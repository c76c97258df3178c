//! The events of a job with their times, while its coordinator is killed and restarted.

use std::time::Duration;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_transport::ReconnectPolicy;
use anyhow::anyhow;
use tokio::time::Instant;

use crate::client::{Client, Events, Silent};
use crate::exit::{Exit, OrExit as _};
use crate::lab::child_process::ChildProcess;

/// The pause before a reconnect. It is short because it is part of the measurement.
const PAUSE: Duration = Duration::from_millis(10);

/// An event and its time of arrival.
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) event: JobEvent,
}

/// How far a job has come.
pub(super) struct JobProgress {
    /// Turns applied.
    pub(super) turn: u64,
    /// Turns since the newest checkpoint.
    pub(super) since_checkpoint: u64,
    /// Mean time of a turn, in seconds.
    pub(super) a_turn: f64,
}

/// Watches one job.
pub(super) struct Watching {
    events: Events,
}

impl Watching {
    pub(super) fn new(client: Client, job: &str) -> Self {
        Self { events: Events::new(client, job, 0, ReconnectPolicy::FOREVER.every(PAUSE)) }
    }

    /// The next event. Fails if the coordinator exits.
    pub(super) async fn next(&mut self, coordinator: &mut ChildProcess) -> anyhow::Result<Seen> {
        tokio::select! {
            seen = self.event() => Ok(seen),
            error = coordinator.ended() => Err(error),
        }
    }

    async fn event(&mut self) -> Seen {
        loop {
            match self.events.next(&mut Silent).await {
                Ok(watched) => return Seen { at: Instant::now(), event: watched.event },
                // A coordinator that has just started may not know the job yet.
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Waits until a turn has been applied.
    pub(super) async fn until_step(&mut self, coordinator: &mut ChildProcess) -> anyhow::Result<()> {
        loop {
            match self.next(coordinator).await?.event {
                JobEvent::Step(_) => return Ok(()),
                JobEvent::Finished(finished) => return Err(ended(finished)),
                _ => {}
            }
        }
    }

    /// Waits for a new checkpoint, and then until this many turns have been applied after it.
    pub(super) async fn until_after_checkpoint(
        &mut self,
        after: u64,
        coordinator: &mut ChildProcess,
    ) -> anyhow::Result<JobProgress> {
        let mut checkpoint: Option<u64> = None;
        let (mut started, mut steps) = (None, 0_u32);
        loop {
            let seen = self.next(coordinator).await?;
            match seen.event {
                JobEvent::Checkpoint { turn, .. } => {
                    if let Some(before) = checkpoint {
                        let turns = turn.0 - before;
                        return Err(anyhow!(
                            "the job wrote a checkpoint {turns} turns after the previous one: use a smaller --after, or \
                             `--set \"checkpoints.every={} turns\"`",
                            2 * (after + 1)
                        ))
                        .or_exit(Exit::Usage);
                    }
                    checkpoint = Some(turn.0);
                }
                JobEvent::Step(step) => {
                    let lasted = seen.at.duration_since(*started.get_or_insert(seen.at));
                    let turn = step.turn.0 + 1;
                    if let Some(since_checkpoint) = checkpoint.and_then(|at| turn.checked_sub(at))
                        && since_checkpoint >= after
                        && steps > 0
                    {
                        return Ok(JobProgress {
                            turn,
                            since_checkpoint,
                            a_turn: lasted.as_secs_f64() / f64::from(steps),
                        });
                    }
                    steps += 1;
                }
                JobEvent::Finished(finished) => return Err(ended(finished)),
                _ => {}
            }
        }
    }
}

fn ended(finished: Finished) -> anyhow::Error {
    let reason = finished.reason.unwrap_or_else(|| "the job needs more turns".to_owned());
    anyhow!("the job ended before a process was killed: {reason}")
}
