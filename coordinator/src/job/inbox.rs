//! What comes in: checked against the job's shapes, turned into inputs of the turn machine, answered when refused.

use antiphon_core::event::JobEvent;
use antiphon_core::ids::{ModalityName, Term, WorkerId};
use antiphon_core::numerics::NumericFingerprint;
use antiphon_core::turn::{ContributionHeader, Input, Rejected, SplitSizes};
use antiphon_proto::assignment::Prepared;
use antiphon_proto::chunks::Followed;
use antiphon_proto::contribution;
use antiphon_proto::parts::PartSaved;
use antiphon_proto::stream::Subject;
use antiphon_proto::times::Learned;
use antiphon_proto::v1::{self, worker_message::Message};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::contract::{JobInput, contribution_limits};
use super::refusal::Refusal;
use super::trouble::Trouble;
use super::{Asked, Encoding, Job, Member};

impl Job {
    pub(super) fn take(&mut self, input: JobInput) {
        match input {
            JobInput::WorkerJoined { worker, modality, outbound } => {
                self.worker_joined(worker, modality, outbound);
            }
            JobInput::WorkerGone { worker, why } => self.worker_gone(worker, why),
            JobInput::Heartbeat { worker, progress, busy, trouble } => {
                self.set_trouble(&worker, trouble);
                // One that has lost its place may still send some.
                let _lost = self.try_give(Input::Heartbeat { worker, progress, busy });
            }
            JobInput::FromWorker { worker, message, followed, since, turnstile } => {
                if let Message::Contribution(_) = &message {
                    self.times.take_up(since);
                }
                self.hear(&worker, message, followed);
                drop(turnstile);
            }
            JobInput::Stop { now } => {
                self.asked = Some(Asked::Stop);
                self.waits_for_nobody |= now;
                self.give(if now { Input::StopNow } else { Input::Stop });
            }
            JobInput::Suspend => {
                self.waits_for_nobody = true;
                self.asked.get_or_insert(Asked::Suspend);
                self.give(Input::Stop);
            }
        }
    }

    /// No worker is taken any more while the coordinator ends, so a turn or a part that needs one who is gone will not come: the
    /// next coordinator goes on from the newest checkpoint. A person may want the same of a job. A checkpoint that can still be
    /// completed is waited for, unless the store has not taken it for long.
    pub(super) fn end_without_those_who_are_gone(&mut self) {
        if !self.waits_for_nobody || self.waiting().is_none() {
            return;
        }
        if self.trouble.is_long() || self.members.values().any(|member| member.trouble.is_long()) {
            info!(job = %self.id, "the store takes nothing, and is not waited for");
            return self.give(Input::StopWithout);
        }
        if let Some(modality) = self.modalities.iter().find(|modality| self.workers.is_nobodys(modality)) {
            info!(job = %self.id, %modality, "a worker is gone, and is not waited for");
            self.give(Input::StopNow);
        }
    }

    fn worker_joined(
        &mut self,
        worker: WorkerId,
        modality: ModalityName,
        outbound: mpsc::Sender<v1::CoordinatorMessage>,
    ) {
        // Before the machine judges, because it has the worker assigned at once.
        let joined = self.now();
        let member = Member {
            modality: modality.clone(),
            outbound,
            encoding: None,
            joined,
            restores: None,
            trouble: Trouble::default(),
        };
        let before = self.members.insert(worker.clone(), member);
        if let Err(rejected) = self.try_give(Input::Joined { worker: worker.clone(), modality: modality.clone() }) {
            info!(job = %self.id, %worker, %rejected, "it has no place here");
            match before {
                Some(member) => self.members.insert(worker.clone(), member),
                None => self.members.remove(&worker),
            };
            // Whoever has the place was offered to be replaced, and has shown up before this one came.
            if let Some(occupant) = self.machine.worker(&modality) {
                self.workers.keep(&modality, occupant);
            }
            self.workers.evict(&worker, &rejected.to_string());
        }
    }

    /// Its connection is gone, or it has let go of the job as it was told.
    fn worker_gone(&mut self, worker: WorkerId, why: String) {
        let Some(member) = self.members.remove(&worker) else { return };
        if self.machine.worker(&member.modality) == Some(&worker) {
            self.tell_of_loss(&member.modality, &worker, why.clone());
        }
        // One that was told to let go may have had the head until now.
        let _had_no_part = self.try_give(Input::Left { worker, why });
    }

    fn hear(&mut self, worker: &WorkerId, message: Message, followed: Followed) {
        let subject = Subject::of(&message);
        let taken = match message {
            Message::Prepared(prepared) => self.prepared(worker, prepared),
            Message::Contribution(contribution) => self.contribution(worker, &contribution, followed),
            Message::Logits(chunk) => self.logits(worker, chunk, followed),
            Message::Learned(learned) => self.learned(worker, learned),
            Message::PartSaved(saved) => self.part_saved(worker, saved),
            Message::Failed(failed) => self.worker_failed(worker, failed),
            Message::Leaving(leaving) => self.leaving(worker, &leaving),
            // The shell answers these itself.
            Message::Register(_) | Message::Heartbeat(_) | Message::Released(_) | Message::Chunk(_) => Ok(()),
        };
        if let Err(Refusal { reason, message }) = taken {
            warn!(job = %self.id, %worker, ?reason, why = message, "refused");
            if let Some(rejected) = subject.rejected(reason, message) {
                self.send(worker, v1::coordinator_message::Message::Rejected(rejected));
            }
        }
    }

    fn prepared(&mut self, worker: &WorkerId, message: v1::Prepared) -> Result<(), Refusal> {
        let prepared = Prepared::try_from(message).map_err(Refusal::malformed)?;
        self.same_term(prepared.term)?;
        let samples = SplitSizes { train: prepared.train, validation: prepared.validation, test: prepared.test };
        self.same_data(worker, samples)?;
        info!(job = %self.id, %worker, ?samples, "prepared");
        // Before the machine hears of it, because the last worker to be prepared starts the job, which tells of all of them.
        let of = Encoding { parameters: prepared.parameters, fingerprint: prepared.fingerprint };
        let before = self.set_encoding(worker, Some(of));
        let input = Input::Prepared { worker: worker.clone(), samples, steps_done: prepared.steps_done };
        self.try_give(input).map_err(|rejected| {
            self.set_encoding(worker, before);
            Refusal::from(rejected)
        })?;
        self.note_numerics(worker, prepared.fingerprint);
        if let Some(member) = self.members.get_mut(worker) {
            member.restores = None;
        }
        self.set_trouble(worker, None);
        Ok(())
    }

    /// Notes what a worker suffers from the store.
    fn set_trouble(&mut self, worker: &WorkerId, trouble: Option<String>) {
        match (self.members.get(worker), trouble) {
            (Some(member), Some(trouble)) => member.trouble.note(trouble),
            (Some(member), None) => member.trouble.clear(),
            (None, _) => {}
        }
    }

    /// A job that goes on from a checkpoint must have as many samples to train on as before: the order of batches follows them.
    fn same_data(&self, worker: &WorkerId, samples: SplitSizes) -> Result<(), Refusal> {
        let Some(modality) = self.machine.modality_of(worker) else { return Ok(()) };
        match self.samples_before.get(modality) {
            Some(before) if before.train != samples.train => Err(Refusal::malformed(format!(
                "`{modality}` has {} samples to train on, but the checkpoint was written with {}; go on with the same data",
                samples.train, before.train
            ))),
            _ => Ok(()),
        }
    }

    /// Notes what a worker said of its encoder; hands over what was noted before.
    fn set_encoding(&mut self, worker: &WorkerId, of: Option<Encoding>) -> Option<Encoding> {
        self.members.get_mut(worker).and_then(|member| std::mem::replace(&mut member.encoding, of))
    }

    /// Says so if a worker is about to compute that rounds otherwise than those before it.
    fn note_numerics(&mut self, worker: &WorkerId, fingerprint: NumericFingerprint) {
        let Some(modality) = self.members.get(worker).map(|member| member.modality.clone()) else { return };
        // A worker that says nothing of it.
        if fingerprint == NumericFingerprint(0) {
            return;
        }
        if let Some(before) = self.numerics.note(&modality, fingerprint) {
            warn!(job = %self.id, %worker, %modality, %fingerprint, ?before, "it rounds otherwise than those before it");
            let (job, turn, worker) = (self.id.clone(), self.turn(), worker.clone());
            self.emit(&JobEvent::MixedNumerics { job, turn, modality, worker, fingerprint, before });
        }
    }

    /// The tensors are checked in full before the machine hears of them: nothing is half applied.
    fn contribution(
        &mut self,
        worker: &WorkerId,
        message: &v1::Contribution,
        followed: Followed,
    ) -> Result<(), Refusal> {
        let limits = contribution_limits(&self.spec);
        let checked = self.threads.run(&self.weights, || {
            let (turn, shard, contribution) =
                contribution::decode(message, &limits, followed).map_err(Refusal::malformed)?;
            let contribution = contribution.into_checked(limits.classes, limits.width).map_err(Refusal::malformed)?;
            Ok::<_, Refusal>((turn, shard, contribution))
        });
        let (turn, micro_shard, contribution) = checked?;
        self.times.lap(|times| &mut times.decode);
        let header = ContributionHeader {
            worker: worker.clone(),
            turn,
            micro_shard,
            samples: contribution.samples,
            loss: contribution.loss,
        };
        self.incoming = Some(contribution);
        let taken = self.try_give(Input::Contribution(header));
        self.incoming = None;
        Ok(taken?)
    }

    fn learned(&mut self, worker: &WorkerId, message: v1::Learned) -> Result<(), Refusal> {
        let Learned { turn, times } = Learned::try_from(message).map_err(Refusal::malformed)?;
        self.try_give(Input::Learned { worker: worker.clone(), turn })?;
        if let Some(modality) = self.machine.modality_of(worker) {
            self.times.learned(modality, times);
        }
        Ok(())
    }

    fn part_saved(&mut self, worker: &WorkerId, message: v1::PartSaved) -> Result<(), Refusal> {
        let saved = PartSaved::try_from(message).map_err(Refusal::malformed)?;
        self.same_term(saved.term)?;
        // Before the machine judges, because the last parts have the manifest written at once.
        self.add_parts(worker, &saved)?;
        self.set_trouble(worker, None);
        self.try_give(Input::PartSaved { worker: worker.clone(), turn: saved.turn }).map_err(|rejected| {
            self.remove_parts(&saved);
            rejected.into()
        })
    }

    fn worker_failed(&mut self, worker: &WorkerId, failed: v1::Failed) -> Result<(), Refusal> {
        self.same_term(Term(failed.term))?;
        let v1::Failed { reason, again, .. } = failed;
        Ok(self.try_give(Input::WorkerFailed { worker: worker.clone(), reason, again })?)
    }

    fn leaving(&mut self, worker: &WorkerId, leaving: &v1::Leaving) -> Result<(), Refusal> {
        self.same_term(Term(leaving.term))?;
        Ok(self.try_give(Input::Leaving { worker: worker.clone() })?)
    }

    pub(super) fn same_term(&self, given: Term) -> Result<(), Refusal> {
        if given == self.term {
            return Ok(());
        }
        Err(Rejected::StaleTerm { given: given.0, current: self.term.0 }.into())
    }
}
