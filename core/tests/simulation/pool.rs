//! The simulated pool: which workers are registered, and which of them has a slot. The real [`plan`] decides, as in the
//! real pool.

use std::collections::BTreeMap;

use antiphon_core::ids::{ModalityName, WorkerId};
use antiphon_core::placement::{JobSlots, Occupancy, Readiness, plan};
use antiphon_core::time::Time;

use crate::coordinator::job_id;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Assigned,
    Releasing,
}

/// A request of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Tell the job that a worker joins.
    Join(WorkerId, ModalityName),
    /// Tell a worker to release the job.
    Release(WorkerId),
}

/// The workers of a coordinator with one job.
#[derive(Debug)]
pub(crate) struct Pool {
    workers: BTreeMap<WorkerId, (ModalityName, State)>,
    job: JobSlots,
    wishes: Vec<Wish>,
}

impl Pool {
    pub(crate) fn new(modalities: impl Iterator<Item = ModalityName>) -> Self {
        let slots = modalities.map(|name| (name, Occupancy::Empty)).collect();
        let job = JobSlots { job: job_id(), order: 0, readiness: Readiness::Ready, gang: false, slots };
        Self { workers: BTreeMap::new(), job, wishes: Vec::new() }
    }

    pub(crate) fn knows(&self, worker: &WorkerId) -> bool {
        self.workers.contains_key(worker)
    }

    pub(crate) fn registered(&self, modality: &ModalityName) -> usize {
        self.workers.values().filter(|(name, _)| name == modality).count()
    }

    pub(crate) fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    pub(crate) fn register(&mut self, worker: WorkerId, modality: ModalityName) {
        self.workers.insert(worker, (modality, State::Free));
        self.fill();
    }

    /// Removes a worker whose connection has ended.
    pub(crate) fn remove(&mut self, worker: &WorkerId) {
        self.workers.remove(worker);
        if let Some(slot) = self.slot_of(worker) {
            *slot = Occupancy::Empty;
        }
        self.fill();
    }

    pub(crate) fn release_slot(&mut self, worker: &WorkerId) {
        if let Some(slot) = self.slot_of(worker) {
            *slot = Occupancy::Released(worker.clone());
        }
        self.fill();
    }

    pub(crate) fn reclaim_slot(&mut self, modality: &ModalityName, worker: &WorkerId) {
        if let Some(slot) = self.job.slots.get_mut(modality) {
            *slot = Occupancy::Held(worker.clone());
        }
    }

    pub(crate) fn evict(&mut self, worker: &WorkerId) {
        if let Some(slot) = self.slot_of(worker) {
            *slot = Occupancy::Empty;
        }
        if let Some((_, state @ State::Assigned)) = self.workers.get_mut(worker) {
            *state = State::Releasing;
            self.wishes.push(Wish::Release(worker.clone()));
        }
        self.fill();
    }

    pub(crate) fn released(&mut self, worker: &WorkerId) {
        if let Some((_, state @ State::Releasing)) = self.workers.get_mut(worker) {
            *state = State::Free;
        }
        self.fill();
    }

    fn slot_of(&mut self, worker: &WorkerId) -> Option<&mut Occupancy> {
        self.job.slots.values_mut().find(|slot| slot.worker() == Some(worker))
    }

    fn fill(&mut self) {
        let free = self.workers.iter().filter(|(_, (_, state))| *state == State::Free);
        let moves = plan([&self.job], free.map(|(worker, (modality, _))| (worker, modality)), Time(0));
        for step in moves {
            if let Some((_, state)) = self.workers.get_mut(&step.worker) {
                *state = State::Assigned;
            }
            self.job.slots.insert(step.modality.clone(), Occupancy::Held(step.worker.clone()));
            self.wishes.push(Wish::Join(step.worker, step.modality));
        }
    }
}
