//! The turn machine decides who may step the shared head, and when. It owns the protocol state of one job and nothing
//! else: no tensors, no sockets, no clock.
//!
//! ```text
//!              every slot filled, every worker ready
//!   gathering ────────────────────────────────────────▶ training ◀──────────────┐
//!                                                          │ epoch or job ends,  │ duties done
//!                                                          ▼ period, or stop     │
//!                                                      boundary ────────────────┘
//!                                                          │ last duty
//!                                                          ▼
//!                        a permanent failure           finished
//!
//!   a slot:   empty ──joined──▶ opening ──prepared──▶ replaying ──all own steps replayed──▶ ready
//!               ▲       └─▶ backing off ─▲ after a transient failure                          │
//!               └──── left, replaced, failed, asked to stop ◀─────────────────────────────────┘
//! ```
//!
//! Training is one loop: grant a step, accept its contribution, apply it, grant the next. A pipelined job grants the
//! next step at once, while the encoder that gave the contribution still learns from it. A sequential job waits until
//! that encoder has learned and the turn is folded into the projector. At a turn boundary the job may have *duties*:
//! evaluate a split, write a checkpoint, finish.
//!
//! **Faults.** A lost worker costs its own modality only. Its replacement loads the encoder from the newest complete
//! checkpoint and replays the modality's steps since then, under the heads that were granted for them. The head and the
//! other encoders continue until a turn needs the missing worker. A worker's *lease expires* when it sends no heartbeat
//! for `lease_ttl`, or makes no progress for `turn_deadline`. Its slot is then released to other workers, but the
//! worker keeps the slot until another one takes it. Its contribution is accepted as long as its turn has not been
//! granted to another worker.
//!
//! **Checkpoints** start at a turn boundary and are written while training continues ([`PendingCheckpoint`]). One is
//! written at a time: the next one waits for it, and so does the end of the job.
//!
//! The state is in `machine.rs` and the files below it, which hold data only. Every other file has the transitions of
//! one subject.
//!
//! Invariants, checked by [`TurnMachine::check_invariants`] after every transition in tests:
//!
//! 1. A step is applied once: every [`Effect::Apply`] names the head version after the one before it.
//! 2. A rejected input changes nothing.
//! 3. While training exactly one step is open; in every other phase none is. In a pipelined job an open step is not
//!    applied yet.
//! 4. Steps of all modalities add up to the head version.
//! 5. A finished job stays finished.
//! 6. Every step that a replacement has to replay is in the history: those since the newest complete checkpoint, and
//!    those since the checkpoint that a worker which is not ready yet started from.

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
pub use message::{ContributionHeader, Effect, Input, Outcome, Progress, Rejected, ReplayBufferLevel, SplitSizes};
pub use pending_checkpoint::PendingCheckpoint;
pub use position::{LossSum, Position};
pub use waiting::Waiting;

use crate::time::Time;

impl TurnMachine {
    /// Processes one input and appends the resulting effects.
    ///
    /// # Errors
    /// If the input does not fit the state. The state and `effects` are then unchanged.
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
            Input::ReplayBuffer(level) => self.set_replay_buffer(now, level, effects)?,
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
