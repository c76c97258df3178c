//! Which job gets which worker. Pure: slots and free workers in, moves out; the pool applies them.
//!
//! ```text
//!   jobs, in order of submission     free workers, in order of their ids
//!     7  audio: empty                  w1 audio
//!        image: held by w3             w2 audio                          ─▶  w1 ─▶ job 7, audio
//!     9  audio: released by w4                                               w2 ─▶ job 9, audio
//! ```
//!
//! Laws, each with a property test below:
//!
//! 1. A worker gets one job at most, and only a slot of its modality.
//! 2. Jobs are served in order of submission. Of two jobs with a slot for the same worker, the first gets it.
//! 3. Only free workers move, and only to slots that are empty or released: a held slot stays as it is.
//! 4. No slot stays empty or released while a worker that could have it stays free. The exceptions are slots of a job
//!    that is recovering, that comes after a job which holds others up, or that is a gang which cannot be filled.
//! 5. A gang is filled whole or not at all. Until it can be filled it reserves nothing: later jobs get the workers.
//! 6. When the moves of a plan are applied, the next plan is empty.
//!
//! Does not take a worker away from a job. A job releases its slots itself, because only the job knows its leases.

use std::collections::BTreeMap;

use crate::ids::{JobId, ModalityName, WorkerId};
use crate::time::Time;

/// What a plan needs to know about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSlots {
    /// The job.
    pub job: JobId,
    /// Its number in the order of submission.
    pub order: u64,
    /// Whether it can use workers yet.
    pub readiness: Readiness,
    /// Whether its empty slots must all be filled at once.
    pub gang: bool,
    /// Its modalities, each with its slot.
    pub slots: BTreeMap<ModalityName, Occupancy>,
}

/// Whether a job can use workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can use them now.
    Ready,
    /// Its checkpoint is being loaded. It gets no worker, but keeps its number in the order.
    Recovering {
        /// The jobs behind it get no worker before this time, or before it is ready if there is no such time.
        holds_others_until: Option<Time>,
    },
}

/// The worker in a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Occupancy {
    /// No worker.
    #[default]
    Empty,
    /// This worker, and no other gets the slot.
    Held(WorkerId),
    /// This worker, until another one is free.
    Released(WorkerId),
}

impl Occupancy {
    /// The worker in the slot.
    #[must_use]
    pub fn worker(&self) -> Option<&WorkerId> {
        match self {
            Self::Empty => None,
            Self::Held(worker) | Self::Released(worker) => Some(worker),
        }
    }

    fn is_open(&self) -> bool {
        !matches!(self, Self::Held(_))
    }
}

/// A free worker gets a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The worker.
    pub worker: WorkerId,
    /// The job.
    pub job: JobId,
    /// The slot in it.
    pub modality: ModalityName,
}

/// The moves that are due. `free` are the workers without a job, in the order in which they are assigned.
#[must_use]
pub fn plan<'a>(
    jobs: impl IntoIterator<Item = &'a JobSlots>,
    free: impl IntoIterator<Item = (&'a WorkerId, &'a ModalityName)>,
    now: Time,
) -> Vec<Move> {
    let mut jobs: Vec<&JobSlots> = jobs.into_iter().collect();
    jobs.sort_by_key(|job| job.order);
    let mut free: Vec<_> = free.into_iter().collect();
    let mut moves = Vec::new();
    for job in jobs {
        match job.readiness {
            Readiness::Ready => {}
            Readiness::Recovering { holds_others_until } if holds_others_until.is_none_or(|until| now < until) => break,
            Readiness::Recovering { .. } => continue,
        }
        if job.gang && !can_be_filled(job, &free) {
            continue;
        }
        for (modality, _) in job.slots.iter().filter(|(_, occupancy)| occupancy.is_open()) {
            if let Some(at) = free.iter().position(|(_, of)| *of == modality) {
                let (worker, _) = free.remove(at);
                moves.push(Move { worker: worker.clone(), job: job.job.clone(), modality: modality.clone() });
            }
        }
    }
    moves
}

/// Whether there is a free worker for every empty slot of a job. A released slot needs none, because its worker may
/// reclaim it.
fn can_be_filled(job: &JobSlots, free: &[(&WorkerId, &ModalityName)]) -> bool {
    let mut empty = job.slots.iter().filter(|(_, occupancy)| **occupancy == Occupancy::Empty);
    empty.all(|(modality, _)| free.iter().any(|(_, of)| *of == modality))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rng::{Stream, below, stream};

    const CASES: u64 = 2_000;
    const MODALITIES: [&str; 3] = ["audio", "image", "text"];
    const NOW: Time = Time(100);

    fn job_id(number: u64) -> JobId {
        JobId::try_from(format!("job-{number}")).expect("a good id")
    }

    fn worker(name: &str) -> WorkerId {
        WorkerId::try_from(name).expect("a good id")
    }

    fn modality(name: &str) -> ModalityName {
        ModalityName::try_from(name).expect("a good name")
    }

    /// Jobs and free workers.
    #[derive(Debug, Clone)]
    struct State {
        jobs: Vec<JobSlots>,
        free: BTreeMap<WorkerId, ModalityName>,
    }

    impl State {
        fn plan(&self) -> Vec<Move> {
            plan(&self.jobs, &self.free, NOW)
        }

        fn apply(&mut self, moves: &[Move]) {
            for step in moves {
                let modality = self.free.remove(&step.worker).expect("a free worker");
                let job = self.jobs.iter_mut().find(|job| job.job == step.job).expect("a job that is there");
                assert_eq!(modality, step.modality, "a slot of another modality");
                let slot = job.slots.get_mut(&step.modality).expect("a slot of the job");
                assert!(slot.is_open(), "{} of {} was held", step.modality, step.job);
                *slot = Occupancy::Held(step.worker.clone());
            }
        }

        /// Whether this job gets no worker now, even if some are free.
        fn is_held_back(&self, job: &JobSlots) -> bool {
            let holds = |other: &JobSlots| match other.readiness {
                Readiness::Ready => false,
                Readiness::Recovering { holds_others_until } => holds_others_until.is_none_or(|until| NOW < until),
            };
            job.readiness != Readiness::Ready || self.jobs.iter().any(|other| other.order < job.order && holds(other))
        }
    }

    fn chance(dice: &mut Stream, one_in: u64) -> bool {
        below(dice, one_in) == 0
    }

    fn any_state(case: u64) -> State {
        let dice = &mut stream(case, &["placement".into()]);
        let mut orders: Vec<u64> = (0..below(dice, 6)).collect();
        for at in (1..orders.len()).rev() {
            orders.swap(at, below(dice, at as u64 + 1) as usize);
        }
        let jobs = orders.into_iter().map(|order| any_job(dice, order)).collect();
        let free = (0..below(dice, 8))
            .map(|at| {
                (worker(&format!("free-{at}")), modality(MODALITIES[below(dice, MODALITIES.len() as u64) as usize]))
            })
            .collect();
        State { jobs, free }
    }

    fn any_job(dice: &mut Stream, order: u64) -> JobSlots {
        let readiness = match below(dice, 8) {
            0 => Readiness::Recovering { holds_others_until: None },
            1 => Readiness::Recovering { holds_others_until: Some(Time(NOW.0 - 1 + below(dice, 3))) },
            _ => Readiness::Ready,
        };
        let gang = chance(dice, 3);
        let mut slots = BTreeMap::new();
        for name in MODALITIES {
            let holder = worker(&format!("holder-{order}-{name}"));
            let occupancy = match below(dice, 5) {
                0 => continue,
                1 => Occupancy::Held(holder),
                2 => Occupancy::Released(holder),
                _ => Occupancy::Empty,
            };
            slots.insert(modality(name), occupancy);
        }
        JobSlots { job: job_id(order), order, readiness, gang, slots }
    }

    fn for_any_state(law: impl Fn(&State, &[Move])) {
        for case in 0..CASES {
            let state = any_state(case);
            let moves = state.plan();
            let told = format!("case {case}: {state:#?}\n{moves:#?}");
            let kept = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| law(&state, &moves)));
            assert!(kept.is_ok(), "{told}");
        }
    }

    #[test]
    fn a_worker_gets_one_job_at_most() {
        for_any_state(|state, moves| {
            let moved: BTreeSet<&WorkerId> = moves.iter().map(|step| &step.worker).collect();
            assert_eq!(moved.len(), moves.len(), "a worker moves twice");
            state.clone().apply(moves);
        });
    }

    #[test]
    fn jobs_are_served_in_order_of_submission() {
        for_any_state(|state, moves| {
            let order = |step: &Move| state.jobs.iter().find(|job| job.job == step.job).expect("it is there").order;
            assert!(moves.is_sorted_by_key(order), "a later job was served first");
            // Without the jobs behind it, no job is served otherwise.
            for last in 0..state.jobs.len() as u64 {
                let mut first = state.clone();
                first.jobs.retain(|job| job.order <= last);
                let served: Vec<&Move> = moves.iter().filter(|step| order(step) <= last).collect();
                assert_eq!(first.plan().iter().collect::<Vec<_>>(), served, "a later job cost job {last} a worker");
            }
        });
    }

    #[test]
    fn no_open_slot_and_worker_miss_each_other() {
        for_any_state(|state, moves| {
            let mut after = state.clone();
            after.apply(moves);
            for job in after.jobs.iter().filter(|job| !after.is_held_back(job)) {
                let is_free = |name: &ModalityName| after.free.values().any(|of| of == name);
                let mut missed = job.slots.iter().filter(|(name, slot)| slot.is_open() && is_free(name));
                let waits =
                    job.gang && job.slots.iter().any(|(name, slot)| *slot == Occupancy::Empty && !is_free(name));
                assert!(waits || missed.next().is_none(), "{} could have a worker more", job.job);
            }
        });
    }

    #[test]
    fn a_gang_is_filled_whole_or_not_at_all() {
        for_any_state(|state, moves| {
            let mut after = state.clone();
            after.apply(moves);
            for job in after.jobs.iter().filter(|job| job.gang) {
                let served = moves.iter().any(|step| step.job == job.job);
                let empty = job.slots.values().any(|slot| *slot == Occupancy::Empty);
                assert!(!(served && empty), "{} was filled partially", job.job);
            }
        });
    }

    #[test]
    fn a_job_that_is_held_back_gets_no_worker() {
        for_any_state(|state, moves| {
            for job in state.jobs.iter().filter(|job| state.is_held_back(job)) {
                assert!(moves.iter().all(|step| step.job != job.job), "{} is held back", job.job);
            }
        });
    }

    #[test]
    fn a_plan_that_was_applied_leaves_nothing_to_do() {
        for_any_state(|state, moves| {
            let mut after = state.clone();
            after.apply(moves);
            assert_eq!(after.plan(), []);
        });
    }

    #[test]
    fn a_recovering_job_keeps_its_order_and_holds_others_back() {
        let slots = |order, readiness| JobSlots {
            job: job_id(order),
            order,
            readiness,
            gang: false,
            slots: [(modality("audio"), Occupancy::Empty)].into(),
        };
        let free = BTreeMap::from([(worker("w"), modality("audio"))]);
        let recovering = |holds_others_until| Readiness::Recovering { holds_others_until };
        let goes_to = |readiness, now| {
            let moves = plan(&[slots(2, Readiness::Ready), slots(1, readiness)], &free, Time(now));
            moves.first().map(|step| step.job.to_string())
        };
        assert_eq!(goes_to(recovering(None), 9), None);
        assert_eq!(goes_to(recovering(Some(Time(9))), 8), None);
        assert_eq!(goes_to(recovering(Some(Time(9))), 9).as_deref(), Some("job-2"));
        assert_eq!(goes_to(Readiness::Ready, 9).as_deref(), Some("job-1"));
    }
}
