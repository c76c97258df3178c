//! The workers of a job: those with a slot and those that are being evicted, what each has reported, and which slots
//! have lost their worker.
//!
//! Invariant: a worker with a slot in the turn machine is a member here. Messages to workers are sent only here, and a
//! worker that does not read them loses its slot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use antiphon_core::event::{JobEvent, ModalityStart};
use antiphon_core::ids::{ModalityName, Turn, WorkerId};
use antiphon_core::numerics::{NumericFingerprint, Numerics};
use antiphon_core::time::Time;
use antiphon_core::turn::{Input, SplitSizes};
use antiphon_proto::v1::{self, coordinator_message::Message};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::context::Context;
use super::contract::Workers;
use super::refusal::Refusal;
use super::store_errors::StoreErrors;
use super::turns::Turns;

/// The workers of one job.
#[derive(Debug)]
pub(super) struct Membership {
    context: Arc<Context>,
    pool: Arc<dyn Workers>,
    /// Includes evicted workers that have not released the job yet.
    members: BTreeMap<WorkerId, JobWorker>,
    /// Since when each modality that lost its worker has been without one.
    lost: BTreeMap<ModalityName, Time>,
    /// The samples of each modality when the checkpoint to resume from was written.
    samples_before: BTreeMap<ModalityName, SplitSizes>,
    numerics: Numerics,
}

/// A worker of the job.
#[derive(Debug)]
pub(super) struct JobWorker {
    modality: ModalityName,
    outbound: mpsc::Sender<v1::CoordinatorMessage>,
    /// Set when the worker is prepared.
    encoder: Option<Encoder>,
    joined: Time,
    /// The checkpoint that the worker is loading its encoder from.
    restores: Option<Turn>,
    /// The store errors that the worker reported last.
    store_errors: StoreErrors,
}

/// What a worker reports about its encoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoder {
    /// The number of its parameters.
    pub(super) parameters: u64,
    pub(super) fingerprint: NumericFingerprint,
}

impl Membership {
    pub(super) fn new(
        context: Arc<Context>,
        pool: Arc<dyn Workers>,
        samples_before: BTreeMap<ModalityName, SplitSizes>,
        numerics: Numerics,
    ) -> Self {
        Self { context, pool, members: BTreeMap::new(), lost: BTreeMap::new(), samples_before, numerics }
    }

    /// Adds a worker. Returns the member that it replaces.
    pub(super) fn join(
        &mut self,
        worker: WorkerId,
        modality: ModalityName,
        outbound: mpsc::Sender<v1::CoordinatorMessage>,
    ) -> Option<JobWorker> {
        let joined = self.context.now();
        let store_errors = StoreErrors::default();
        let member = JobWorker { modality, outbound, encoder: None, joined, restores: None, store_errors };
        self.members.insert(worker, member)
    }

    /// Undoes [`Self::join`] of a worker that gets no slot here, and evicts the worker.
    pub(super) fn turn_away(&mut self, worker: &WorkerId, before: Option<JobWorker>, why: &str, turns: &Turns) {
        info!(%worker, why, "the job rejects a worker, because it has no slot for it");
        let joined = match before {
            Some(member) => self.members.insert(worker.clone(), member),
            None => self.members.remove(worker),
        };
        // The previous worker of the slot came back before this one joined.
        if let Some(modality) = joined.map(|member| member.modality)
            && let Some(occupant) = turns.machine.worker(&modality)
        {
            self.pool.reclaim_slot(&modality, occupant);
        }
        self.pool.evict(worker, why);
    }

    /// A worker's connection has ended, or an evicted worker has released the job.
    pub(super) fn leave(&mut self, worker: WorkerId, why: String, turns: &Turns) -> Option<Input> {
        let member = self.members.remove(&worker)?;
        if turns.has_slot(&member.modality, &worker) {
            self.lose(&member.modality, &worker, why.clone(), turns);
        }
        Some(Input::Left { worker, why })
    }

    /// Sends a message to a worker. A worker that does not read its messages counts as lost; its `Left` input is then
    /// returned.
    pub(super) fn send(&mut self, worker: &WorkerId, message: Message, turns: &Turns) -> Option<Input> {
        let member = self.members.get(worker)?;
        let Err(error) = member.outbound.try_send(message.into()) else { return None };
        warn!(%worker, %error, "a worker does not read its messages; the job evicts it");
        let why = "it does not read its messages".to_owned();
        let modality = member.modality.clone();
        self.members.remove(worker);
        if !turns.has_slot(&modality, worker) {
            return None;
        }
        self.lose(&modality, worker, why.clone(), turns);
        self.pool.evict(worker, &why);
        Some(Input::Left { worker: worker.clone(), why })
    }

    /// Evicts a worker. It is still answered until it has released the job.
    pub(super) fn evict(&mut self, worker: &WorkerId, why: String, turns: &Turns) {
        if let Some(modality) = self.members.get(worker).map(|member| member.modality.clone()) {
            self.lose(&modality, worker, why.clone(), turns);
        }
        self.pool.evict(worker, &why);
    }

    /// Releases a worker's slot to the other workers of its modality.
    pub(super) fn release_slot(&self, worker: &WorkerId, modality: ModalityName, why: String, turns: &Turns) {
        warn!(%worker, %modality, turn = turns.turn().0, why, "the slot of a worker is released");
        let (job, turn) = (self.context.id.clone(), turns.turn());
        let expired = worker.clone();
        self.context.emit(&JobEvent::LeaseExpired { job, turn, modality, worker: expired, reason: why });
        self.pool.release_slot(worker);
    }

    /// Undoes [`Self::release_slot`].
    pub(super) fn reclaim_slot(&self, worker: &WorkerId, turns: &Turns) {
        if let Some(modality) = turns.machine.modality_of(worker) {
            self.pool.reclaim_slot(modality, worker);
        }
    }

    /// Called when every worker is ready and the job starts or resumes.
    pub(super) fn started(&mut self) {
        self.lost.clear();
    }

    /// Data and encoder of each modality, for the `started` event.
    pub(super) fn starts(&self, turns: &Turns) -> BTreeMap<ModalityName, ModalityStart> {
        let start = |member: &JobWorker| {
            let samples = *turns.machine.samples().get(&member.modality)?;
            let (turns_done, turns) = turns.machine.turns_of(&member.modality);
            let Encoder { parameters, fingerprint } = member.encoder?;
            let fingerprint = Some(fingerprint);
            Some((member.modality.clone(), ModalityStart { samples, parameters, fingerprint, turns_done, turns }))
        };
        self.members.values().filter_map(start).collect()
    }

    /// Called when a worker's encoder has all steps of its modality.
    pub(super) fn ready(&mut self, worker: WorkerId, modality: ModalityName, replayed: u64, turns: &Turns) {
        info!(%worker, %modality, turn = turns.turn().0, replayed, "a worker is ready");
        let joined = self.members.get(&worker).map(|member| member.joined);
        let Some(since) = self.lost.remove(&modality).or(joined).filter(|_| turns.started) else { return };
        let (job, turn) = (self.context.id.clone(), turns.turn());
        let seconds = self.context.now().since(since).to_std().as_secs_f64();
        self.context.emit(&JobEvent::WorkerReady { job, turn, modality, worker, replayed, seconds });
    }

    fn lose(&mut self, modality: &ModalityName, worker: &WorkerId, reason: String, turns: &Turns) {
        warn!(%worker, %modality, turn = turns.turn().0, reason, "the job has lost a worker");
        if !turns.started {
            return;
        }
        let now = self.context.now();
        self.lost.entry(modality.clone()).or_insert(now);
        let (modality, worker) = (modality.clone(), worker.clone());
        let (job, turn) = (self.context.id.clone(), turns.turn());
        self.context.emit(&JobEvent::WorkerLost { job, turn, modality, worker, reason });
    }

    /// Records that a worker loads its encoder from the checkpoint of this turn, which must not be removed meanwhile.
    pub(super) fn restores(&mut self, worker: &WorkerId, checkpoint: Turn) {
        if let Some(member) = self.members.get_mut(worker) {
            member.restores = Some(checkpoint);
        }
    }

    /// The checkpoints that workers load their encoders from.
    pub(super) fn checkpoints_in_use(&self) -> BTreeSet<Turn> {
        self.members.values().filter_map(|member| member.restores).collect()
    }

    /// Checks that a resumed job has as many training samples as before, because the order of batches depends on it.
    ///
    /// # Errors
    /// If the number differs.
    pub(super) fn check_samples(&self, worker: &WorkerId, given: SplitSizes, turns: &Turns) -> Result<(), Refusal> {
        let Some(modality) = turns.machine.modality_of(worker) else { return Ok(()) };
        match self.samples_before.get(modality) {
            Some(before) if before.train != given.train => Err(Refusal::malformed(format!(
                "`{modality}` has {} samples to train on, but the checkpoint was written with {}; resume with the same \
                 data",
                given.train, before.train
            ))),
            _ => Ok(()),
        }
    }

    /// Records what a worker reports about its encoder. Returns the previous report.
    pub(super) fn set_encoder(&mut self, worker: &WorkerId, encoder: Option<Encoder>) -> Option<Encoder> {
        self.members.get_mut(worker).and_then(|member| std::mem::replace(&mut member.encoder, encoder))
    }

    /// Records that a worker has loaded its encoder. Emits an event if it rounds differently from the workers before
    /// it.
    pub(super) fn prepared(&mut self, worker: &WorkerId, fingerprint: NumericFingerprint, turns: &Turns) {
        let Some(member) = self.members.get_mut(worker) else { return };
        member.restores = None;
        member.store_errors.clear();
        // The worker reports no fingerprint.
        if fingerprint == NumericFingerprint(0) {
            return;
        }
        let modality = member.modality.clone();
        let Some(before) = self.numerics.note(&modality, fingerprint) else { return };
        warn!(%worker, %modality, %fingerprint, ?before, "a worker rounds differently from the workers before it");
        let (job, turn, worker) = (self.context.id.clone(), turns.turn(), worker.clone());
        self.context.emit(&JobEvent::MixedNumerics { job, turn, modality, worker, fingerprint, before });
    }

    /// The numeric fingerprints of all workers so far.
    pub(super) fn numerics(&self) -> &Numerics {
        &self.numerics
    }

    /// Records the store error that a worker retries, or that there is none.
    pub(super) fn set_store_error(&self, worker: &WorkerId, error: Option<String>) {
        match (self.members.get(worker), error) {
            (Some(member), Some(error)) => member.store_errors.note(error),
            (Some(member), None) => member.store_errors.clear(),
            (None, _) => {}
        }
    }

    /// The store errors of each worker, as the status shows them.
    pub(super) fn store_errors(&self) -> impl Iterator<Item = String> {
        self.members.iter().filter_map(|(worker, JobWorker { modality, store_errors, .. })| {
            store_errors.message().map(|error| format!("`{modality}` worker `{worker}`: {error}"))
        })
    }

    /// Whether any worker reports that the store has failed for a long time.
    pub(super) fn store_errors_last_long(&self) -> bool {
        self.members.values().any(|member| member.store_errors.last_long())
    }

    /// A modality whose slot no registered worker has or can get.
    pub(super) fn unassigned(&self) -> Option<&ModalityName> {
        self.context.modalities.iter().find(|modality| self.pool.is_unassigned(modality))
    }

    /// The number of registered workers of `modality`, in any job.
    pub(super) fn registered(&self, modality: &ModalityName) -> usize {
        self.pool.registered(modality)
    }
}
