//! Incoming messages: checks them against the job's shapes, turns them into inputs of the turn machine, and answers
//! rejected ones.

use antiphon_core::ids::{ModalityName, Term, WorkerId};
use antiphon_core::turn::{ContributionHeader, Input, SplitSizes};
use antiphon_proto::assignment::Prepared;
use antiphon_proto::chunks::Followed;
use antiphon_proto::files::FilesSaved;
use antiphon_proto::stream::Subject;
use antiphon_proto::times::Learned;
use antiphon_proto::v1::{self, worker_message::Message};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Job;
use super::contract::{JobInput, contribution_limits};
use super::evaluation::ReceivedLogits;
use super::head::Received;
use super::membership::Encoder;
use super::refusal::Refusal;

impl Job {
    pub(super) fn take(&mut self, input: JobInput) {
        match input {
            JobInput::WorkerJoined { worker, modality, outbound } => {
                self.worker_joined(worker, modality, outbound);
            }
            JobInput::WorkerGone { worker, why } => {
                if let Some(left) = self.membership.leave(worker, why, &self.turns) {
                    // An evicted worker may have had the head until now.
                    let _had_no_slot = self.try_give(left);
                }
            }
            JobInput::Heartbeat { worker, progress, busy, store_error } => {
                self.membership.set_store_error(&worker, store_error);
                // A worker that has lost its slot may still send some.
                let _had_no_slot = self.try_give(Input::Heartbeat { worker, progress, busy });
            }
            JobInput::FromWorker { worker, message, followed, since, turnstile } => {
                if let Message::Contribution(_) = &message {
                    self.times.dequeued(since);
                }
                self.hear(&worker, message, followed);
                drop(turnstile);
            }
            JobInput::Stop { now } => {
                self.stop.stop(now);
                self.give(if now { Input::StopNow } else { Input::Stop });
            }
            JobInput::Suspend => {
                self.stop.suspend();
                self.give(Input::Stop);
            }
        }
    }

    /// During shutdown the coordinator accepts no workers, so a turn or checkpoint that needs a missing worker would
    /// never end. The next coordinator resumes from the newest checkpoint. A user can request the same for a job. A
    /// checkpoint that can still be completed is completed, unless the store has failed for a long time.
    pub(super) fn end_without_missing_workers(&mut self) {
        if !self.stop.waits_for_no_worker() || self.waiting().is_none() {
            return;
        }
        if self.checkpoints.store_errors_last_long() || self.membership.store_errors_last_long() {
            info!("the job stops without its pending checkpoint, because the store has failed for a long time");
            return self.give(Input::StopWithoutCheckpoint);
        }
        if let Some(modality) = self.membership.unassigned() {
            info!(%modality, "the job stops at once, because a modality has no worker");
            self.give(Input::StopNow);
        }
    }

    fn worker_joined(
        &mut self,
        worker: WorkerId,
        modality: ModalityName,
        outbound: mpsc::Sender<v1::CoordinatorMessage>,
    ) {
        // Before the machine decides, because it may assign the worker at once.
        let before = self.membership.join(worker.clone(), modality.clone(), outbound);
        if let Err(rejected) = self.try_give(Input::Joined { worker: worker.clone(), modality }) {
            self.membership.turn_away(&worker, before, &rejected.to_string(), &self.turns);
        }
    }

    fn hear(&mut self, worker: &WorkerId, message: Message, followed: Followed) {
        let subject = Subject::of(&message);
        let taken = match message {
            Message::Prepared(prepared) => self.prepared(worker, prepared),
            Message::Contribution(contribution) => self.contribution(worker, &contribution, followed),
            Message::Logits(chunk) => self.logits(worker, chunk, followed),
            Message::Learned(learned) => self.learned(worker, learned),
            Message::FilesSaved(saved) => self.files_saved(worker, saved),
            Message::Failed(failed) => self.worker_failed(worker, failed),
            Message::Leaving(leaving) => self.leaving(worker, &leaving),
            // The session handles these itself.
            Message::Register(_) | Message::Heartbeat(_) | Message::Released(_) | Message::Chunk(_) => Ok(()),
        };
        if let Err(Refusal { reason, message }) = taken {
            warn!(%worker, ?reason, why = message, "the job rejected a message from a worker");
            if let Some(rejected) = subject.rejected(reason, message)
                && let Some(left) = self.send(worker, v1::coordinator_message::Message::Rejected(rejected))
            {
                self.give(left);
            }
        }
    }

    fn prepared(&mut self, worker: &WorkerId, message: v1::Prepared) -> Result<(), Refusal> {
        let prepared = Prepared::try_from(message).map_err(Refusal::malformed)?;
        self.check_term(prepared.term)?;
        let samples = SplitSizes { train: prepared.train, validation: prepared.validation, test: prepared.test };
        self.membership.check_samples(worker, samples, &self.turns)?;
        info!(%worker, ?samples, "a worker has opened its data and encoder");
        // Before the machine receives it, because the last prepared worker starts the job, and the `started` event
        // describes all of them.
        let encoder = Encoder { parameters: prepared.parameters, fingerprint: prepared.fingerprint };
        let before = self.membership.set_encoder(worker, Some(encoder));
        let input = Input::Prepared { worker: worker.clone(), samples, steps_done: prepared.steps_done };
        if let Err(rejected) = self.try_give(input) {
            self.membership.set_encoder(worker, before);
            return Err(rejected.into());
        }
        self.membership.prepared(worker, prepared.fingerprint, &self.turns);
        Ok(())
    }

    /// The tensors are checked in full before the machine sees the header, so nothing is half applied.
    fn contribution(
        &mut self,
        worker: &WorkerId,
        message: &v1::Contribution,
        followed: Followed,
    ) -> Result<(), Refusal> {
        let limits = contribution_limits(&self.context.spec);
        let Received { turn, micro_shard, samples, loss } = self.head.receive(message, &limits, followed)?;
        self.times.lap(|times| &mut times.decode);
        let header = ContributionHeader { worker: worker.clone(), turn, micro_shard, samples, loss };
        let taken = self.try_give(Input::Contribution(header));
        self.head.release();
        Ok(taken?)
    }

    fn logits(&mut self, worker: &WorkerId, message: v1::LogitsChunk, followed: Followed) -> Result<(), Refusal> {
        let classes = self.head.classes();
        let actions = self.evaluations.take(
            worker,
            ReceivedLogits { message, followed },
            classes,
            &self.turns,
            &mut self.times,
        )?;
        for input in self.act(actions) {
            self.give(input);
        }
        Ok(())
    }

    fn learned(&mut self, worker: &WorkerId, message: v1::Learned) -> Result<(), Refusal> {
        let Learned { turn, times } = Learned::try_from(message).map_err(Refusal::malformed)?;
        self.try_give(Input::Learned { worker: worker.clone(), turn })?;
        if let Some(modality) = self.turns.machine.modality_of(worker) {
            self.times.learned(modality, times);
        }
        Ok(())
    }

    fn files_saved(&mut self, worker: &WorkerId, message: v1::FilesSaved) -> Result<(), Refusal> {
        let saved = FilesSaved::try_from(message).map_err(Refusal::malformed)?;
        self.check_term(saved.term)?;
        // Before the machine decides, because the last files trigger the manifest at once.
        self.checkpoints.add_files(worker, &saved, &self.turns)?;
        self.membership.set_store_error(worker, None);
        self.try_give(Input::FilesSaved { worker: worker.clone(), turn: saved.turn }).map_err(|rejected| {
            self.checkpoints.remove_files(&saved);
            rejected.into()
        })
    }

    fn worker_failed(&mut self, worker: &WorkerId, failed: v1::Failed) -> Result<(), Refusal> {
        self.check_term(Term(failed.term))?;
        let v1::Failed { reason, transient, .. } = failed;
        Ok(self.try_give(Input::WorkerFailed { worker: worker.clone(), reason, transient })?)
    }

    fn leaving(&mut self, worker: &WorkerId, leaving: &v1::Leaving) -> Result<(), Refusal> {
        self.check_term(Term(leaving.term))?;
        Ok(self.try_give(Input::Leaving { worker: worker.clone() })?)
    }

    fn check_term(&self, given: Term) -> Result<(), Refusal> {
        Refusal::check_term(given, self.context.term)
    }
}
