//! The registered workers, and the job of each.
//!
//! Invariants: a worker id is registered once at a time; a worker has at most one job; an evicted worker becomes free
//! only when it reports that it has released its job, because it may still be computing.
//!
//! The pool does not decide which job gets which worker. [`placement::plan`] decides, and the pool applies its moves.
//!
//! The pool sends nothing: each worker's session watches its [`WorkerState`] and notifies job and worker, so that
//! everything about one worker comes in order. The lock is held for a few map operations and never across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antiphon_core::ids::{JobId, ModalityName, WorkerId};
use antiphon_core::placement::{self, JobSlots, Move, Occupancy, Readiness};
use antiphon_core::time::{Span, Time};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::job::contract::{JobInput, Workers};

/// Why a worker was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The id is taken.
    #[error("worker `{worker}` is registered already; stop the other one, or start this one with another `--name`")]
    Duplicate {
        /// The id.
        worker: WorkerId,
    },
}

/// The state of a registered worker.
#[derive(Debug, Clone)]
pub enum WorkerState {
    /// It waits for a job.
    Free,
    /// It has a job.
    Assigned(Assignment),
    /// It was evicted from its job and has not reported the release yet.
    Releasing {
        /// The job.
        job: JobId,
        /// A human-readable reason.
        reason: String,
    },
}

/// The job of a worker.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// The job's inbox.
    pub inbox: mpsc::Sender<JobInput>,
    /// The largest total size of the tensors in one message of the worker, in bytes.
    pub message_bytes: usize,
    /// The lease: how long the worker may be silent before its slot is released.
    pub lease: Duration,
}

/// The registered workers. Clones share them.
#[derive(Debug, Clone)]
pub struct Pool {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    workers: BTreeMap<WorkerId, Worker>,
    jobs: Vec<Job>,
    /// Recovering jobs, which have an order but no slots yet.
    recovering: Vec<JobSlots>,
    /// The origin of the time in plans.
    origin: Instant,
}

#[derive(Debug)]
struct Worker {
    modality: ModalityName,
    state: watch::Sender<WorkerState>,
}

#[derive(Debug)]
struct Job {
    slots: JobSlots,
    /// The assignment that each of its workers gets.
    assignment: Assignment,
}

/// A worker's registration. Dropping it removes the worker from the pool.
#[derive(Debug)]
pub struct Registration {
    pool: Pool,
    worker: WorkerId,
    modality: ModalityName,
    state: watch::Receiver<WorkerState>,
}

/// The number of workers of a modality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of registered workers.
    pub registered: usize,
    /// The number of registered workers without a job.
    pub free: usize,
}

impl Pool {
    /// Registers a worker, and assigns it to a job that waits for its modality.
    ///
    /// # Errors
    /// If its id is taken.
    pub fn register(&self, worker: WorkerId, modality: ModalityName) -> Result<Registration, RegisterError> {
        let mut state = self.lock();
        if state.workers.contains_key(&worker) {
            return Err(RegisterError::Duplicate { worker });
        }
        let (sender, mut watched) = watch::channel(WorkerState::Free);
        watched.mark_unchanged();
        state.workers.insert(worker.clone(), Worker { modality: modality.clone(), state: sender });
        state.fill_slots();
        drop(state);
        Ok(Registration { pool: self.clone(), worker, modality, state: watched })
    }

    /// Adds the job with this number in the order of submission, and gives it free workers. It is no longer recovering.
    pub fn add_job(&self, order: u64, modalities: &[ModalityName], assignment: Assignment) {
        let mut state = self.lock();
        let job = assignment.job.clone();
        state.recovering.retain(|entry| entry.job != job);
        let slots = modalities.iter().map(|modality| (modality.clone(), Occupancy::Empty)).collect();
        let slots = JobSlots { job, order, readiness: Readiness::Ready, gang: false, slots };
        state.jobs.push(Job { slots, assignment });
        state.fill_slots();
    }

    /// Reserves the order of a recovering job. Later jobs get no workers until it is added or removed, or until
    /// [`Self::limit_hold`] ends the wait.
    pub fn hold_for(&self, job: JobId, order: u64) {
        let readiness = Readiness::Recovering { holds_others_until: None };
        self.lock().recovering.push(JobSlots { job, order, readiness, gang: false, slots: BTreeMap::new() });
    }

    /// Lets jobs after this recovering job get workers after `limit` at the latest.
    pub fn limit_hold(&self, job: &JobId, limit: Duration) {
        let mut state = self.lock();
        let until = state.now() + Span(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX));
        let entry = state.recovering.iter_mut().find(|entry| entry.job == *job);
        if let Some(Readiness::Recovering { holds_others_until }) = entry.map(|entry| &mut entry.readiness) {
            *holds_others_until = Some(holds_others_until.map_or(until, |before| before.min(until)));
        }
        state.fill_slots();
    }

    /// Removes a finished job and evicts its workers.
    pub fn remove_job(&self, job: &JobId, reason: &str) {
        let mut state = self.lock();
        state.recovering.retain(|entry| entry.job != *job);
        state.jobs.retain(|entry| entry.slots.job != *job);
        // This includes workers whose slot was given to others and that have not released the job yet.
        for worker in state.workers_of(job) {
            state.begin_release(&worker, job, reason);
        }
        state.fill_slots();
    }

    /// Releases a worker's slot in a job. The next free worker gets it.
    fn release_slot(&self, job: &JobId, worker: &WorkerId) {
        let mut state = self.lock();
        if let Some(slot) = state.slot_of(job, worker) {
            *slot = Occupancy::Released(worker.clone());
        }
        state.fill_slots();
    }

    /// Gives a released slot back to its worker, even if another worker has got it in the meantime.
    fn reclaim_slot(&self, job: &JobId, modality: &ModalityName, worker: &WorkerId) {
        let mut state = self.lock();
        // A worker whose connection has ended in the meantime sends nothing more, and must not block other workers.
        if !state.workers_of(job).contains(worker) {
            return;
        }
        let entry = state.jobs.iter_mut().find(|entry| entry.slots.job == *job);
        if let Some(slot) = entry.and_then(|entry| entry.slots.slots.get_mut(modality)) {
            *slot = Occupancy::Held(worker.clone());
        }
    }

    /// Evicts a worker from a job. If it still has its slot, the next free worker gets the slot.
    fn evict(&self, job: &JobId, worker: &WorkerId, reason: &str) {
        let mut state = self.lock();
        if let Some(slot) = state.slot_of(job, worker) {
            *slot = Occupancy::Empty;
        }
        if state.workers_of(job).contains(worker) {
            state.begin_release(worker, job, reason);
        }
        state.fill_slots();
    }

    /// The number of workers of `modality`.
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

impl Default for Pool {
    /// A pool without workers and jobs.
    fn default() -> Self {
        let (workers, jobs, recovering) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { state: Arc::new(Mutex::new(State { workers, jobs, recovering, origin: Instant::now() })) }
    }
}

impl Registration {
    /// The worker.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// Its modality.
    #[must_use]
    pub fn modality(&self) -> &ModalityName {
        &self.modality
    }

    /// Waits for the worker's next state. Short-lived states may be skipped.
    pub async fn next_state(&mut self) -> WorkerState {
        // The sender lives in the pool as long as this registration.
        let _changed = self.state.changed().await;
        self.state.borrow_and_update().clone()
    }

    /// Records that the worker has released its job.
    pub fn released(&self) {
        let mut state = self.pool.lock();
        if let Some(worker) = state.workers.get(&self.worker)
            && matches!(*worker.state.borrow(), WorkerState::Releasing { .. })
        {
            worker.state.send_replace(WorkerState::Free);
        }
        state.fill_slots();
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.workers.remove(&self.worker);
        state.empty_slot_of(&self.worker);
        state.fill_slots();
    }
}

/// The pool's interface for a job's task.
#[derive(Debug, Clone)]
pub struct JobWorkers {
    pool: Pool,
    job: JobId,
}

impl JobWorkers {
    /// The interface of `pool` for this job.
    #[must_use]
    pub fn new(pool: Pool, job: JobId) -> Self {
        Self { pool, job }
    }
}

impl Workers for JobWorkers {
    fn release_slot(&self, worker: &WorkerId) {
        self.pool.release_slot(&self.job, worker);
    }

    fn reclaim_slot(&self, modality: &ModalityName, worker: &WorkerId) {
        self.pool.reclaim_slot(&self.job, modality, worker);
    }

    fn evict(&self, worker: &WorkerId, reason: &str) {
        self.pool.evict(&self.job, worker, reason);
    }

    fn is_unassigned(&self, modality: &ModalityName) -> bool {
        let state = self.pool.lock();
        let job = state.jobs.iter().find(|entry| entry.slots.job == self.job);
        let slot = job.and_then(|entry| entry.slots.slots.get(modality));
        let might_come = |worker: &Worker| {
            worker.modality == *modality && !matches!(&*worker.state.borrow(), WorkerState::Assigned(_))
        };
        slot.is_none_or(|slot| *slot == Occupancy::Empty) && !state.workers.values().any(might_come)
    }

    fn registered(&self, modality: &ModalityName) -> usize {
        self.pool.counts(modality).registered
    }
}

impl State {
    /// Applies the moves that are due.
    fn fill_slots(&mut self) {
        let jobs = self.jobs.iter().map(|entry| &entry.slots).chain(&self.recovering);
        let free =
            self.workers.iter().filter(|(_, worker)| worker.is_free()).map(|(id, worker)| (id, &worker.modality));
        for step in placement::plan(jobs, free, self.now()) {
            self.apply(step);
        }
    }

    fn apply(&mut self, Move { worker, job, modality }: Move) {
        let entry = self.jobs.iter_mut().find(|entry| entry.slots.job == job);
        if let (Some(entry), Some(free)) = (entry, self.workers.get(&worker)) {
            free.state.send_replace(WorkerState::Assigned(entry.assignment.clone()));
            entry.slots.slots.insert(modality, Occupancy::Held(worker));
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn empty_slot_of(&mut self, worker: &WorkerId) {
        for slot in self.jobs.iter_mut().flat_map(|entry| entry.slots.slots.values_mut()) {
            if slot.worker() == Some(worker) {
                *slot = Occupancy::Empty;
            }
        }
    }

    /// A worker's slot in a job, if the worker still has it.
    fn slot_of(&mut self, job: &JobId, worker: &WorkerId) -> Option<&mut Occupancy> {
        let entry = self.jobs.iter_mut().find(|entry| entry.slots.job == *job)?;
        entry.slots.slots.values_mut().find(|slot| slot.worker() == Some(worker))
    }

    /// The workers that are assigned to this job.
    fn workers_of(&self, job: &JobId) -> Vec<WorkerId> {
        let has = |worker: &Worker| matches!(&*worker.state.borrow(), WorkerState::Assigned(at) if at.job == *job);
        self.workers.iter().filter(|(_, worker)| has(worker)).map(|(id, _)| id.clone()).collect()
    }

    fn begin_release(&mut self, worker: &WorkerId, job: &JobId, reason: &str) {
        if let Some(worker) = self.workers.get(worker) {
            worker.state.send_replace(WorkerState::Releasing { job: job.clone(), reason: reason.to_owned() });
        }
    }
}

impl Worker {
    fn is_free(&self) -> bool {
        matches!(*self.state.borrow(), WorkerState::Free)
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
        match &*registration.state.borrow() {
            WorkerState::Assigned(assignment) => Some(assignment.job.to_string()),
            WorkerState::Free | WorkerState::Releasing { .. } => None,
        }
    }

    /// Adds a job after the existing ones.
    fn add(pool: &Pool, id: &str, modalities: &[&str]) {
        let order = pool.lock().jobs.len() as u64;
        add_as(pool, order, id, modalities);
    }

    fn add_as(pool: &Pool, order: u64, id: &str, modalities: &[&str]) {
        let modalities: Vec<ModalityName> = modalities.iter().map(|m| modality(m)).collect();
        let (inbox, lease) = (mpsc::channel(1).0, Duration::ZERO);
        pool.add_job(order, &modalities, Assignment { job: job(id), inbox, message_bytes: 0, lease });
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

    #[tokio::test(start_paused = true)]
    async fn a_recovering_job_is_served_first_unless_it_is_late() {
        let pool = Pool::default();
        pool.hold_for(job("first"), 0);
        pool.hold_for(job("second"), 1);
        add_as(&pool, 2, "third", &["audio", "image"]);
        let (a, b, c) = (worker(&pool, "a", "audio"), worker(&pool, "b", "image"), worker(&pool, "c", "audio"));
        assert_eq!((job_of(&a), job_of(&b)), (None, None), "the others come first");
        add_as(&pool, 0, "first", &["audio"]);
        assert_eq!((job_of(&a).as_deref(), job_of(&b)), (Some("first"), None));
        pool.limit_hold(&job("second"), Duration::from_secs(2));
        assert_eq!(job_of(&b), None);
        tokio::time::advance(Duration::from_secs(2)).await;
        pool.limit_hold(&job("second"), Duration::ZERO);
        assert_eq!((job_of(&b).as_deref(), job_of(&c).as_deref()), (Some("third"), Some("third")));
        add_as(&pool, 1, "second", &["audio"]);
        add_as(&pool, 3, "fourth", &["audio"]);
        pool.remove_job(&job("first"), "over");
        a.released();
        assert_eq!(job_of(&a).as_deref(), Some("second"), "it has kept its order");
    }

    #[test]
    fn a_job_that_does_not_recover_holds_no_worker() {
        let pool = Pool::default();
        pool.hold_for(job("first"), 0);
        add_as(&pool, 1, "second", &["audio"]);
        let a = worker(&pool, "a", "audio");
        assert_eq!(job_of(&a), None);
        pool.remove_job(&job("first"), "it failed");
        assert_eq!(job_of(&a).as_deref(), Some("second"));
    }

    #[test]
    fn an_id_is_registered_once_at_a_time() {
        let pool = Pool::default();
        let first = worker(&pool, "w", "audio");
        let second = pool.register(first.worker().clone(), modality("image"));
        let message = second.expect_err("the id is taken").to_string();
        assert_eq!(
            message,
            "worker `w` is registered already; stop the other one, or start this one with another `--name`"
        );
        drop(first);
        assert_eq!(worker(&pool, "w", "image").modality().as_str(), "image");
    }

    #[test]
    fn the_slot_of_a_lost_worker_goes_to_a_free_one() {
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
        assert_eq!(job_of(&a).as_deref(), Some("first"), "it was not asked to let go");
        pool.remove_job(&job("first"), "over");
        assert_eq!(job_of(&a), None, "it has not let go yet");
        a.released();
        assert_eq!(job_of(&a).as_deref(), Some("second"));
    }

    #[test]
    fn a_released_slot_goes_to_the_next_free_worker() {
        let pool = Pool::default();
        let a = worker(&pool, "a", "audio");
        add(&pool, "j", &["audio"]);
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        of_job.release_slot(a.worker());
        assert_eq!(job_of(&a).as_deref(), Some("j"), "no other worker is there");
        let b = worker(&pool, "b", "audio");
        assert_eq!((job_of(&a).as_deref(), job_of(&b).as_deref()), (Some("j"), Some("j")));
        of_job.evict(a.worker(), "its slot was given to `b`");
        a.released();
        assert_eq!((job_of(&a), job_of(&b).as_deref()), (None, Some("j")));
        of_job.evict(b.worker(), "it failed");
        assert_eq!(job_of(&a).as_deref(), Some("j"));
    }

    #[test]
    fn a_slot_is_unassigned_when_no_worker_could_get_it() {
        let pool = Pool::default();
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        add(&pool, "j", &["audio"]);
        let audio = modality("audio");
        assert!(of_job.is_unassigned(&audio), "no worker is there");
        let a = worker(&pool, "a", "audio");
        assert!(!of_job.is_unassigned(&audio), "it has the slot");
        of_job.evict(a.worker(), "it failed");
        assert!(!of_job.is_unassigned(&audio), "it comes back when it has let go");
        a.released();
        add(&pool, "other", &["audio"]);
        drop(a);
        assert!(of_job.is_unassigned(&audio), "it is gone");
    }

    #[test]
    fn a_worker_that_is_gone_reclaims_no_slot() {
        let pool = Pool::default();
        let a = worker(&pool, "a", "audio");
        add(&pool, "j", &["audio"]);
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        of_job.release_slot(a.worker());
        let id = a.worker().clone();
        drop(a);
        // The job reads its last message only now.
        of_job.reclaim_slot(&modality("audio"), &id);
        let b = worker(&pool, "b", "audio");
        assert_eq!(job_of(&b).as_deref(), Some("j"));
    }

    #[test]
    fn a_reclaimed_slot_goes_to_no_other_worker() {
        let pool = Pool::default();
        let a = worker(&pool, "a", "audio");
        add(&pool, "j", &["audio"]);
        let of_job = JobWorkers::new(pool.clone(), job("j"));
        of_job.release_slot(a.worker());
        of_job.reclaim_slot(&modality("audio"), a.worker());
        let b = worker(&pool, "b", "audio");
        assert_eq!(job_of(&b), None);
        of_job.release_slot(a.worker());
        assert_eq!(job_of(&b).as_deref(), Some("j"));
        // The job had received a message of `a` before `b` joined.
        of_job.reclaim_slot(&modality("audio"), a.worker());
        of_job.evict(b.worker(), "the slot is taken");
        b.released();
        assert_eq!((job_of(&a).as_deref(), job_of(&b)), (Some("j"), None));
    }
}
