//! The turn machine: who may step the shared head, and when. It owns the protocol state of one job and nothing else:
//! no tensors, no sockets, no clock.
//!
//! ```text
//!              every place taken, every worker ready
//!   gathering ────────────────────────────────────────▶ training ◀──────────────┐
//!                                                          │ epoch or job ends,  │ duties done
//!                                                          ▼ period, or stop     │
//!                                                      boundary ────────────────┘
//!                                                          │ last duty
//!                                                          ▼
//!                     a fault that would come again     finished
//!
//!   a place:   empty ──joined──▶ opening ──prepared──▶ replaying ──its own steps taken again──▶ ready
//!                ▲       └─▶ paused ─▲ whoever failed just now                                    │
//!                └──── left, replaced, failed, asked to stop ◀────────────────────────────────────┘
//! ```
//!
//! Training is one loop: grant a step, take its contribution, apply it, grant the next. Pipelined, the next is granted at once,
//! while the encoder that gave the contribution learns from it; sequential, when that encoder has learnt and the turn is
//! folded into the projector. At a turn boundary the job may have *duties*: go through a split, cut a checkpoint, finish.
//!
//! **Faults.** A worker that is lost costs its own modality only. Whoever takes its place loads the encoder of the newest
//! complete checkpoint and takes the modality's steps since then again, under the heads that were granted for them; head and
//! other encoders go on meanwhile, until a turn comes that is held up. A worker that falls silent for the lease's time, or
//! shows no progress for the turn's, *lapses*: its place is offered to others, and it keeps it until one comes. What it sends
//! is taken as long as its turn has not been granted again.
//!
//! **Checkpoints** are cut at a turn boundary and written while training goes on ([`PendingCheckpoint`]); one at a time, so that the next
//! one waits for the last, and the job's end for all.
//!
//! Invariants, checked by [`TurnMachine::check_invariants`] after every transition in tests:
//!
//! 1. A step is applied once: every [`Effect::Apply`] names the head version after the one before it.
//! 2. A rejected input changes nothing.
//! 3. While training exactly one step is open; in every other phase none is. Pipelined, an open step is not applied yet.
//! 4. Steps of all modalities add up to the head version.
//! 5. A finished job stays finished.
//! 6. What a replacement has to take again is all there: the steps since the newest complete checkpoint, and since the one
//!    that anybody who is not ready yet began from.

mod activity;
mod boundary;
mod checkpoints;
pub mod epoch;
mod failures;
mod history;
mod leases;
mod machine;
mod message;
mod pending_checkpoint;
mod position;
mod replay;
mod retries;
mod slot;
mod slots;
#[cfg(test)]
mod testing;
mod training;
mod wait;
mod waiting;

pub use history::PastStep;
pub use machine::TurnMachine;
pub use message::{ContributionHeader, Effect, ReplayBufferLevel, Input, Outcome, Progress, Rejected, SplitSizes};
pub use pending_checkpoint::PendingCheckpoint;
pub use position::{LossSum, Position};
pub use waiting::Waiting;

use crate::time::Time;

impl TurnMachine {
    /// Takes one input and appends what is to be done because of it.
    ///
    /// # Errors
    /// An input that does not fit the state is rejected with its reason; the state and `effects` are as before.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) -> Result<(), Rejected> {
        match input {
            Input::Joined { worker, modality } => self.join(now, worker, modality, effects)?,
            Input::Prepared { worker, samples, steps_done } => {
                self.prepared(now, &worker, samples, steps_done, effects)?;
            }
            Input::Heartbeat { worker, progress, busy } => self.heartbeat(now, &worker, progress, busy, effects)?,
            Input::Leaving { worker } => self.leaving(now, &worker, effects)?,
            Input::Left { worker, .. } => self.left(&worker, effects)?,
            Input::WorkerFailed { worker, reason, transient } => {
                self.worker_failed(now, &worker, &reason, transient, effects)?;
            }
            Input::Contribution(header) => self.contribution(now, &header, effects)?,
            Input::Learned { worker, turn } => self.learned(now, &worker, &turn, effects)?,
            Input::EvaluationFinished { evaluation, score } => {
                self.evaluation_finished(now, evaluation, score, effects)?;
            }
            Input::FilesSaved { worker, turn } => self.files_saved(now, &worker, turn, effects)?,
            Input::CheckpointWritten { turn } => self.checkpoint_written(now, turn, effects)?,
            Input::ReplayBuffer(room) => self.set_replay_buffer(now, room, effects)?,
            Input::ShellFailed { reason } => {
                self.not_finished()?;
                self.finish(Outcome::Failed { reason }, effects);
            }
            Input::Stop => self.stop(false, effects)?,
            Input::StopNow => self.stop(true, effects)?,
            Input::StopWithoutCheckpoint => {
                self.not_finished()?;
                self.finish(Outcome::Stopped, effects);
            }
            Input::Tick => self.tick(now, effects),
            Input::StallEnded => self.stall_ended(now, effects),
        }
        self.note_wait(now);
        Ok(())
    }
}
