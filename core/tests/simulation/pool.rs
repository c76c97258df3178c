//! The simulated pool: which workers are registered, and who has or gets a place. It goes by the rules of the real one.

use std::collections::BTreeMap;

use antiphon_core::ids::{ModalityName, WorkerId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Assigned,
    Releasing,
}

/// Who has a place, and whether whoever is free gets it all the same.
#[derive(Debug, Default)]
struct Seat {
    worker: Option<WorkerId>,
    offered: bool,
}

/// What a pool wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The job is to be told of a worker.
    Join(WorkerId, ModalityName),
    /// A worker is to let go of the job.
    Release(WorkerId),
}

/// The workers of one coordinator that has one job.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    workers: BTreeMap<WorkerId, (ModalityName, Place)>,
    seats: BTreeMap<ModalityName, Seat>,
    wishes: Vec<Wish>,
}

impl Pool {
    pub(crate) fn new(modalities: impl Iterator<Item = ModalityName>) -> Self {
        Self { seats: modalities.map(|name| (name, Seat::default())).collect(), ..Self::default() }
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
        self.workers.insert(worker, (modality, Place::Free));
        self.fill();
    }

    /// Its connection is gone.
    pub(crate) fn remove(&mut self, worker: &WorkerId) {
        self.workers.remove(worker);
        if let Some(seat) = self.seat_of(worker) {
            *seat = Seat::default();
        }
        self.fill();
    }

    pub(crate) fn offer(&mut self, worker: &WorkerId) {
        if let Some(seat) = self.seat_of(worker) {
            seat.offered = true;
        }
        self.fill();
    }

    pub(crate) fn keep(&mut self, modality: &ModalityName, worker: &WorkerId) {
        if let Some(seat) = self.seats.get_mut(modality) {
            *seat = Seat { worker: Some(worker.clone()), offered: false };
        }
    }

    pub(crate) fn evict(&mut self, worker: &WorkerId) {
        if let Some(seat) = self.seat_of(worker) {
            *seat = Seat::default();
        }
        if let Some((_, place @ Place::Assigned)) = self.workers.get_mut(worker) {
            *place = Place::Releasing;
            self.wishes.push(Wish::Release(worker.clone()));
        }
        self.fill();
    }

    pub(crate) fn released(&mut self, worker: &WorkerId) {
        if let Some((_, place @ Place::Releasing)) = self.workers.get_mut(worker) {
            *place = Place::Free;
        }
        self.fill();
    }

    fn seat_of(&mut self, worker: &WorkerId) -> Option<&mut Seat> {
        self.seats.values_mut().find(|seat| seat.worker.as_ref() == Some(worker))
    }

    fn fill(&mut self) {
        for (modality, seat) in self.seats.iter_mut().filter(|(_, seat)| seat.worker.is_none() || seat.offered) {
            let free = self.workers.iter_mut().find(|(_, (name, place))| name == modality && *place == Place::Free);
            if let Some((worker, (_, place))) = free {
                *place = Place::Assigned;
                *seat = Seat { worker: Some(worker.clone()), offered: false };
                self.wishes.push(Wish::Join(worker.clone(), modality.clone()));
            }
        }
    }
}
