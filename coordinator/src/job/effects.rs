//! What the turn machine asks for: messages to workers, steps of the head, checkpoints, events.

use antiphon_core::event::{JobEvent, ModalityStart, StepEvent};
use antiphon_core::head::StepContext;
use antiphon_core::ids::{Lease, ModalityName, TurnRef, WorkerId};
use antiphon_core::learning_rate;
use antiphon_core::turn::{Effect, Input, Progress};
use antiphon_proto::assignment::Grant;
use antiphon_proto::v1::{self, coordinator_message::Message};
use tracing::{info, warn};

use super::times::JobTimes;
use super::{Encoding, Job};

impl Job {
    /// Carries out one effect. An error is the reason for which the job cannot go on.
    pub(super) fn carry_out(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Assign { worker, modality, lease } => self.assign(&worker, &modality, lease),
            Effect::Started => {
                self.times = JobTimes::start();
                self.lost.clear();
                self.started = true;
                self.emit_started();
            }
            Effect::Grant { worker, turn, lease, progress } => self.grant(&worker, turn, lease, progress),
            Effect::Replay { worker, turn, lease, progress } => self.replay(&worker, turn, lease, progress)?,
            Effect::Ready { worker, modality, replayed } => self.tell_of_ready(&modality, &worker, replayed),
            Effect::Offer { worker, modality, why } => {
                warn!(job = %self.id, %worker, %modality, why, "its place is offered to others");
                self.emit(&JobEvent::WorkerLapsed {
                    job: self.id.clone(),
                    turn: self.turn(),
                    modality,
                    worker: worker.clone(),
                    reason: why,
                });
                self.workers.offer(&worker);
            }
            Effect::Keep { worker } => {
                if let Some(modality) = self.machine.modality_of(&worker) {
                    self.workers.keep(modality, &worker);
                }
            }
            Effect::Evict { worker, why } => self.evict(&worker, why),
            Effect::Apply { turn, modality, progress, alpha } => self.apply(&turn, &modality, progress, alpha)?,
            Effect::EndTurn { .. } => self.fold(),
            Effect::ResetProjector => self.head.reset_projector(),
            Effect::Evaluate { evaluation, split } => self.begin_evaluation(evaluation, split),
            Effect::AbandonEvaluation { evaluation } => self.abandon_evaluation(evaluation),
            Effect::Snapshot { turn } => self.begin_cut(turn)?,
            Effect::SaveFiles { worker, turn } => self.save_files(&worker, turn),
            Effect::WriteManifest { turn } => self.complete_cut(turn)?,
            Effect::ForgetHeads { versions } => {
                self.heads.forget(&versions);
                self.watch_room();
            }
            Effect::ReportWait => self.emit_waiting(),
            Effect::Finish(outcome) => info!(job = %self.id, ?outcome, "finished"),
        }
        Ok(())
    }

    /// Sends to a worker. One that does not read what it is sent is as good as gone.
    pub(super) fn send(&mut self, worker: &WorkerId, message: Message) {
        let Some(member) = self.members.get(worker) else { return };
        if let Err(error) = member.outbound.try_send(message.into()) {
            warn!(job = %self.id, %worker, %error, "cannot send");
            let why = "it does not read its messages".to_owned();
            let modality = member.modality.clone();
            self.members.remove(worker);
            if self.machine.worker(&modality) == Some(worker) {
                self.tell_of_loss(&modality, worker, why.clone());
                self.workers.evict(worker, &why);
                self.give(Input::Left { worker: worker.clone(), why });
            }
        }
    }

    fn assign(&mut self, worker: &WorkerId, modality: &ModalityName, lease: Lease) {
        if let (Some(member), Some(saved)) = (self.members.get_mut(worker), &self.newest) {
            member.restores = Some(saved.turn);
        }
        let assign = v1::Assign {
            job: self.id.to_string(),
            term: self.term.0,
            lease: lease.0,
            modality: modality.to_string(),
            specification: self.spec.to_json(),
            checkpoints: self.store.url(),
            restore: self.newest.as_ref().map(|saved| saved.url.clone()),
        };
        info!(job = %self.id, %worker, %modality, "assigned");
        self.send(worker, Message::Assign(assign));
    }

    /// Turns planned in all; none as long as not every worker has been ready.
    pub(super) fn turns_planned(&self) -> Option<u64> {
        self.started.then(|| self.machine.turns_planned())
    }

    fn emit_started(&self) {
        let samples = self.machine.samples();
        let modalities = self.members.values().filter_map(|member| {
            let samples = *samples.get(&member.modality)?;
            let (turns_done, turns) = self.machine.turns_of(&member.modality);
            let Encoding { parameters, fingerprint } = member.encoding?;
            let fingerprint = Some(fingerprint);
            Some((member.modality.clone(), ModalityStart { samples, parameters, fingerprint, turns_done, turns }))
        });
        self.emit(&JobEvent::Started {
            job: self.id.clone(),
            turn: self.machine.position().turn,
            turns: self.machine.turns_planned(),
            modalities: modalities.collect(),
        });
    }

    fn grant(&mut self, worker: &WorkerId, turn: TurnRef, lease: Lease, progress: Progress) {
        let head = self.head.share();
        let grant = Grant { turn, lease, head, progress: progress.epoch, epochs: progress.epochs, replay: false };
        self.send(worker, Message::Grant(grant.encode()));
        self.times.lap(|times| &mut times.encode);
    }

    /// Has a worker's encoder take a step again, under the head that was granted for it.
    fn replay(&mut self, worker: &WorkerId, turn: TurnRef, lease: Lease, progress: Progress) -> Result<(), String> {
        let version = turn.head_version;
        let head = self.threads.run(&self.weights, || self.heads.get(version));
        let head = head.map_err(|error| format!("a head that is to be granted again cannot be read: {error}"))?;
        let grant = Grant { turn, lease, head, progress: progress.epoch, epochs: progress.epochs, replay: true };
        self.send(worker, Message::Grant(grant.encode()));
        Ok(())
    }

    /// Has a worker let go of the job. It is answered until it has.
    fn evict(&mut self, worker: &WorkerId, why: String) {
        if let Some(modality) = self.members.get(worker).map(|member| member.modality.clone()) {
            self.tell_of_loss(&modality, worker, why.clone());
        }
        self.workers.evict(worker, &why);
    }

    pub(super) fn tell_of_loss(&mut self, modality: &ModalityName, worker: &WorkerId, reason: String) {
        warn!(job = %self.id, %worker, %modality, reason, "a worker is lost");
        if self.started {
            let now = self.now();
            self.lost.entry(modality.clone()).or_insert(now);
            self.emit(&JobEvent::WorkerLost {
                job: self.id.clone(),
                turn: self.turn(),
                modality: modality.clone(),
                worker: worker.clone(),
                reason,
            });
        }
    }

    fn tell_of_ready(&mut self, modality: &ModalityName, worker: &WorkerId, replayed: u64) {
        info!(job = %self.id, %worker, %modality, replayed, "ready");
        let joined = self.members.get(worker).map(|member| member.joined);
        if let Some(since) = self.lost.remove(modality).or(joined).filter(|_| self.started) {
            self.emit(&JobEvent::WorkerReady {
                job: self.id.clone(),
                turn: self.turn(),
                modality: modality.clone(),
                worker: worker.clone(),
                replayed,
                seconds: self.now().since(since).to_std().as_secs_f64(),
            });
        }
    }

    /// Tells the machine when the room for heads that may be granted again has changed.
    pub(super) fn watch_room(&mut self) {
        let room = self.heads.room();
        if room != self.room {
            self.room = room;
            self.give(Input::Room(room));
        }
    }

    /// Lets P take in the turn that is over, and makes ready what of it the next turn multiplies by.
    pub(super) fn fold(&mut self) {
        let (head, next) = (&mut self.head, self.machine.holder());
        self.threads.run(&self.weights, || {
            head.end_turn();
            if let Some(next) = next {
                head.prepare_for(next);
            }
        });
        self.times.lap(|times| &mut times.fold);
    }

    /// Projects the contribution and steps the head: the one place where a turn's gradient meets the shared head.
    fn apply(&mut self, turn: &TurnRef, modality: &ModalityName, progress: Progress, alpha: f64) -> Result<(), String> {
        let contribution = self.incoming.take().ok_or("a step was to be applied that nobody sent")?;
        let granted = self.head.share();
        self.threads.run(&self.weights, || self.heads.keep(turn.head_version, granted));
        self.watch_room();
        let optimizer = &self.spec.head.optimizer;
        let lr_factor = learning_rate::factor(&optimizer.schedule, progress.epoch, progress.epochs);
        let (head, times) = (&mut self.head, &mut self.times);
        let at = StepContext { lr_factor, alpha };
        let mut projected = || times.lap(|times| &mut times.project);
        let stepped =
            self.threads.run(&self.weights, || head.apply_checked(modality, &contribution, at, &mut projected));
        let step = stepped.map_err(|error| format!("turn {} of `{modality}`: {error}", turn.turn))?;
        self.times.lap(|times| &mut times.step);
        self.times.stepped();
        self.later.step = Some(StepEvent {
            job: self.id.clone(),
            turn: turn.turn,
            step: turn.step.0,
            epoch: progress.epoch as u64,
            modality: modality.clone(),
            loss: contribution.loss,
            accuracy: f64::from(contribution.correct) / f64::from(contribution.samples.max(1)),
            gradient_norm: step.gradient_norm,
            projected_ratio: step.projected_ratio,
            projector_trace: self.head.projector_trace(),
            lr: optimizer.lr * lr_factor,
        });
        Ok(())
    }
}
