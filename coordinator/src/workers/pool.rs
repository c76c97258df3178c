//! The workers that have registered, and which job has which of them.
//!
//! Invariants: a worker id is registered once at a time; a worker has one job at most; a free worker goes to the first job, in
//! order of submission, that lists its modality and has nobody for it; a released worker is free when it says so itself, because
//! until then it may still be computing.
//!
//! The pool sends nothing: each worker's session watches its [`Place`] and tells job and worker, so that everything about one
//! worker comes in order. The lock is held for a few map operations and never across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antiphon_core::ids::{JobId, ModalityName, WorkerId};
use tokio::sync::{mpsc, watch};

use crate::job::contract::{JobInput, Workers};

/// Why a worker was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The id is taken.
    #[error("worker `{worker}` is registered already; stop the other one, or give this one another id")]
    Duplicate {
        /// The id.
        worker: WorkerId,
    },
}

/// Where a worker stands.
#[derive(Debug, Clone)]
pub enum Place {
    /// Waiting for a job.
    Free,
    /// It has a job.
    Assigned(Assignment),
    /// It is to let go of its job, and has not said yet that it has.
    Releasing {
        /// The job.
        job: JobId,
        /// Why, in words.
        reason: String,
    },
}

/// A worker's job.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// The job's inbox.
    pub inbox: mpsc::Sender<JobInput>,
    /// Bytes that the tensors of one message of the worker may have together.
    pub message_bytes: usize,
    /// How long it may be silent before its place is offered to others.
    pub lease: Duration,
}

/// The registered workers. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<WorkerId, Worker>,
    /// In order of submission.
    jobs: Vec<JobPlaces>,
}

#[derive(Debug)]
struct Worker {
    modality: ModalityName,
    place: watch::Sender<Place>,
}

#[derive(Debug)]
struct JobPlaces {
    job: JobId,
    inbox: mpsc::Sender<JobInput>,
    message_bytes: usize,
    lease: Duration,
    places: BTreeMap<ModalityName, Seat>,
}

/// A modality's place in a job.
#[derive(Debug, Default)]
struct Seat {
    worker: Option<WorkerId>,
    /// Whoever is free gets it, although somebody has it.
    offered: bool,
}

/// A worker's hold on its id; dropping it takes the worker out of the pool.
#[derive(Debug)]
pub struct Registration {
    pool: Pool,
    worker: WorkerId,
    modality: ModalityName,
    place: watch::Receiver<Place>,
}

/// How many workers a modality has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Registered.
    pub registered: usize,
    /// Of these, without a job.
    pub free: usize,
}

impl Pool {
    /// Takes a worker in, and gives it a job if one waits for its modality.
    ///
    /// # Errors
    /// Its id is taken.
    pub fn register(&self, worker: WorkerId, modality: ModalityName) -> Result<Registration, RegisterError> {
        let mut state = self.lock();
        if state.workers.contains_key(&worker) {
            return Err(RegisterError::Duplicate { worker });
        }
        let (place, mut watched) = watch::channel(Place::Free);
        watched.mark_unchanged();
        state.workers.insert(worker.clone(), Worker { modality: modality.clone(), place });
        state.fill_places();
        drop(state);
        Ok(Registration { pool: self.clone(), worker, modality, place: watched })
    }

    /// Takes a job in, behind those before it, and gives it the workers that are free. `message_bytes` is what the
    /// tensors of one message of a worker may have together, `lease` how long a worker may be silent.
    pub fn add_job(
        &self,
        job: JobId,
        modalities: &[ModalityName],
        (message_bytes, lease): (usize, Duration),
        inbox: mpsc::Sender<JobInput>,
    ) {
        let mut state = self.lock();
        let places = modalities.iter().map(|modality| (modality.clone(), Seat::default())).collect();
        state.jobs.push(JobPlaces { job, inbox, message_bytes, lease, places });
        state.fill_places();
    }

    /// Forgets a job that is over; its workers are to let go of it.
    pub fn remove_job(&self, job: &JobId, reason: &str) {
        let mut state = self.lock();
        let Some(at) = state.jobs.iter().position(|entry| entry.job == *job) else {
            return;
        };
        state.jobs.remove(at);
        // Also those whose place was given to others, if they have not let go of it.
        for worker in state.workers_of(job) {
            state.begin_release(&worker, job, reason);
        }
    }

    /// Offers a worker's place in a job to others: the next that is free gets it.
    fn offer(&self, job: &JobId, worker: &WorkerId) {
        let mut state = self.lock();
        if let Some(seat) = state.seat_of(job, worker) {
            seat.offered = true;
        }
        state.fill_places();
    }

    /// Takes the offer back; if somebody else has got the place meanwhile, it is this worker's again.
    fn keep(&self, job: &JobId, modality: &ModalityName, worker: &WorkerId) {
        let mut state = self.lock();
        // A worker whose connection ended meanwhile has said its last word to the job, and is not to keep others out.
        if !state.workers_of(job).contains(worker) {
            return;
        }
        let entry = state.jobs.iter_mut().find(|entry| entry.job == *job);
        if let Some(seat) = entry.and_then(|entry| entry.places.get_mut(modality)) {
            *seat = Seat { worker: Some(worker.clone()), offered: false };
        }
    }

    /// Has a worker let go of a job; its place, if it is still its own, goes to the next that is free.
    fn evict(&self, job: &JobId, worker: &WorkerId, reason: &str) {
        let mut state = self.lock();
        if let Some(seat) = state.seat_of(job, worker) {
            *seat = Seat::default();
        }
        if state.workers_of(job).contains(worker) {
            state.begin_release(worker, job, reason);
        }
        state.fill_places();
    }

    /// How many workers `modality` has.
    #[must_use]
    pub fn counts(&self, modality: &ModalityName) -> Counts {
        let state = self.lock();
        let of_modality = state.workers.values().filter(|worker| worker.modality == *modality);
        of_modality.fold(Counts::default(), |counts, worker| Counts {
            registered: counts.registered + 1,
            free: counts.free + usize::from(worker.is_free()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Who it is.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// Its modality.
    #[must_use]
    pub fn modality(&self) -> &ModalityName {
        &self.modality
    }

    /// The worker's next place, when it has changed. Places that lasted too short to be seen are left out.
    pub async fn next_place(&mut self) -> Place {
        // The sender lives in the pool as long as this registration does.
        let _changed = self.place.changed().await;
        self.place.borrow_and_update().clone()
    }

    /// The worker says that it has let go of its job.
    pub fn released(&self) {
        let mut state = self.pool.lock();
        if let Some(worker) = state.workers.get(&self.worker)
            && matches!(*worker.place.borrow(), Place::Releasing { .. })
        {
            worker.place.send_replace(Place::Free);
        }
        state.fill_places();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.workers.remove(&self.worker);
        state.empty_place_of(&self.worker);
        state.fill_places();
    }
}

/// What a job's task may ask of the pool.
#[derive(Debug, Clone)]
pub struct JobWorkers {
    pool: Pool,
    job: JobId,
}

impl JobWorkers {
    /// What this job may ask of `pool`.
    #[must_use]
    pub fn new(pool: Pool, job: JobId) -> Self {
        Self { pool, job }
    }
}

impl Workers for JobWorkers {
    fn offer(&self, worker: &WorkerId) {
        self.pool.offer(&self.job, worker);
    }

    fn keep(&self, modality: &ModalityName, worker: &WorkerId) {
        self.pool.keep(&self.job, modality, worker);
    }

    fn evict(&self, worker: &WorkerId, reason: &str) {
        self.pool.evict(&self.job, worker, reason);
    }

    fn is_nobodys(&self, modality: &ModalityName) -> bool {
        let state = self.pool.lock();
        let job = state.jobs.iter().find(|entry| entry.job == self.job);
        let seat = job.and_then(|entry| entry.places.get(modality));
        let might_come =
            |worker: &Worker| worker.modality == *modality && !matches!(&*worker.place.borrow(), Place::Assigned(_));
        seat.is_none_or(|seat| seat.worker.is_none()) && !state.workers.values().any(might_come)
    }

    fn registered(&self, modality: &ModalityName) -> usize {
        self.pool.counts(modality).registered
    }
}

impl State {
    fn fill_places(&mut self) {
        for entry in &mut self.jobs {
            let open = entry.places.iter_mut().filter(|(_, seat)| seat.worker.is_none() || seat.offered);
            for (modality, seat) in open {
                let free = self.workers.iter().find(|(_, worker)| worker.is_free() && worker.modality == *modality);
                let Some((id, worker)) = free else { continue };
                *seat = Seat { worker: Some(id.clone()), offered: false };
                let assignment = Assignment {
                    job: entry.job.clone(),
                    inbox: entry.inbox.clone(),
                    message_bytes: entry.message_bytes,
                    lease: entry.lease,
                };
                worker.place.send_replace(Place::Assigned(assignment));
            }
        }
    }

    fn empty_place_of(&mut self, worker: &WorkerId) {
        for seat in self.jobs.iter_mut().flat_map(|entry| entry.places.values_mut()) {
            if seat.worker.as_ref() == Some(worker) {
                *seat = Seat::default();
            }
        }
    }

    /// A worker's place in a job, if it is still its own.
    fn seat_of(&mut self, job: &JobId, worker: &WorkerId) -> Option<&mut Seat> {
        let entry = self.jobs.iter_mut().find(|entry| entry.job == *job)?;
        entry.places.values_mut().find(|seat| seat.worker.as_ref() == Some(worker))
    }

    /// Who has this job to work on.
    fn workers_of(&self, job: &JobId) -> Vec<WorkerId> {
        let has = |worker: &Worker| matches!(&*worker.place.borrow(), Place::Assigned(at) if at.job == *job);
        self.workers.iter().filter(|(_, worker)| has(worker)).map(|(id, _)| id.clone()).collect()
    }

    fn begin_release(&mut self, worker: &WorkerId, job: &JobId, reason: &str) {
        if let Some(worker) = self.workers.get(worker) {
            worker.place.send_replace(Place::Releasing { job: job.clone(), reason: reason.to_owned() });
        }
    }
}

impl Worker {
    fn is_free(&self) -> bool {
        matches!(*self.place.borrow(), Place::Free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> JobId {
        name.try_into().expect("a job id")
    }

    fn modality(name: &str) -> ModalityName {
        name.try_into().expect("a modality")
    }

    fn worker(pool: &Pool, id: &str, of: &str) -> Registration {
        pool.register(id.try_into().expect("a worker id"), modality(of)).expect("the id is free")
    }

    fn job_of(registration: &Registration) -> Option<String> {
        match &*registration.place.borrow() {
            Place::Assigned(assignment) => Some(assignment.job.to_string()),
            Place::Free | Place::Releasing { .. } => None,
        }
    }

    fn add(pool: &Pool, id: &str, modalities: &[&str]) {
        let modalities: Vec<ModalityName> = modalities.iter().map(|m| modality(m)).collect();
        pool.add_job(job(id), &modalities, (0, Duration::ZERO), mpsc::channel(1).0);
    }

    #[test]
    fn jobs_are_served_in_order_of_submission() {
        let pool = Pool::default();
        add(&pool, "first", &["audio", "image"]);
        add(&pool, "second", &["audio"]);
        let (a, b, c) = (worker(&pool, "z", "audio"), worker(&pool, "y", "audio"), worker(&pool, "x", "audio"));
        assert_eq!(job_of(&a).as_deref(), Some("first"));
        assert_eq!(job_of(&b).as_deref(), Some("second"));
        assert_eq!(job_of(&c), None);
        assert_eq!(pool.counts(&modality("audio")), Counts { registered: 3, free: 1 });
    }

    #[test]
    fn an_id_is_registered_once_at_a_time() {
        let pool = Pool::default();
        let first = worker(&pool, "w", "audio");
        let again = pool.register(first.worker().clone(), modality("image"));
        let message = again.expect_err("the id is taken").to_string();
        assert_eq!(message, "worker `w` is registered already; stop the other one, or give this one another id");
        drop(first);
        assert_eq!(worker(&pool, "w", "image").modality().as_str(), "image");
    }

    #[test]
    fn a_lost_workers_place_goes_to_a_free_one() {
        let pool = Pool::default();
        let (a, b) = (worker(&pool, "a", "audio"), worker(&pool, "b", "audio"));
        add(&pool, "j", &["audio"]);
        assert_eq!((job_of(&a).as_deref(), job_of(&b)), (Some("j"), None));
        drop(a);
        assert_eq!(job_of(&b).as_deref(), Some("j"));
    }

    #[test]
    fn a_worker_is_free_once_it_has_said_so() {
        let pool = Pool::default();
        let a = worker(&pool, "a", "audio");
        add(&pool, "first", &["audio"]);
        add(&pool, "second", &["audio"]);
        a.released();
        assert_eq!(job_of(&a).as_deref(), Some("first"), "nobody asked it to let go");
        pool.remove_job(&job("first"), "over");
        assert_eq!(job_of(&a), None, "it has not let go yet");
        a.released();
        assert_eq!(job_of(&a).as_deref(), Some("second"));
    }

    #[test]
    fn a_place_on_offer_goes_to_the_next_that_is_free_and_the_one_who_had_it_lets_go_when_told() {
        let pool = Pool::default();
        let a = worker(&pool, "a", "audio");
        add(&pool, "j", &["audio"]);
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        of_job.offer(a.worker());
        assert_eq!(job_of(&a).as_deref(), Some("j"), "nobody else is there");
        let b = worker(&pool, "b", "audio");
        assert_eq!((job_of(&a).as_deref(), job_of(&b).as_deref()), (Some("j"), Some("j")));
        of_job.evict(a.worker(), "its place was given to `b`");
        a.released();
        assert_eq!((job_of(&a), job_of(&b).as_deref()), (None, Some("j")));
        of_job.evict(b.worker(), "it failed");
        assert_eq!(job_of(&a).as_deref(), Some("j"));
    }

    #[test]
    fn a_place_is_nobodys_when_nobody_is_left_who_could_have_it() {
        let pool = Pool::default();
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        add(&pool, "j", &["audio"]);
        let audio = modality("audio");
        assert!(of_job.is_nobodys(&audio), "nobody is there");
        let a = worker(&pool, "a", "audio");
        assert!(!of_job.is_nobodys(&audio), "it has the place");
        of_job.evict(a.worker(), "it failed");
        assert!(!of_job.is_nobodys(&audio), "it comes back when it has let go");
        a.released();
        add(&pool, "other", &["audio"]);
        drop(a);
        assert!(of_job.is_nobodys(&audio), "it is gone");
    }

    #[test]
    fn nobody_keeps_a_place_who_is_gone() {
        let pool = Pool::default();
        let a = worker(&pool, "a", "audio");
        add(&pool, "j", &["audio"]);
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        of_job.offer(a.worker());
        let id = a.worker().clone();
        drop(a);
        // The job reads what it said last only now.
        of_job.keep(&modality("audio"), &id);
        let b = worker(&pool, "b", "audio");
        assert_eq!(job_of(&b).as_deref(), Some("j"));
    }

    #[test]
    fn a_place_that_is_kept_is_on_offer_no_more() {
        let pool = Pool::default();
        let a = worker(&pool, "a", "audio");
        add(&pool, "j", &["audio"]);
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        of_job.offer(a.worker());
        of_job.keep(&modality("audio"), a.worker());
        let b = worker(&pool, "b", "audio");
        assert_eq!(job_of(&b), None);
        of_job.offer(a.worker());
        assert_eq!(job_of(&b).as_deref(), Some("j"));
        // The job had heard of `a` before it heard of `b`.
        of_job.keep(&modality("audio"), a.worker());
        of_job.evict(b.worker(), "the place is taken");
        b.released();
        assert_eq!((job_of(&a).as_deref(), job_of(&b)), (Some("j"), None));
    }
}
