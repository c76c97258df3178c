//! Accounts for the time of the job's task and of its workers.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_core::ids::{JobId, ModalityName, Turn};
use antiphon_core::times::{Account, CoordinatorTimes, Queued, Stopwatch, WorkerTimes};
use tokio::time::Instant;

/// The shortest interval between `times` events, because epochs may be short. The last one comes at the end.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// The accounts of one job.
#[derive(Debug)]
pub(super) struct JobTimes {
    origin: Instant,
    stopwatch: Stopwatch<CoordinatorTimes>,
    /// Steps of the head.
    steps: u64,
    modalities: BTreeMap<ModalityName, Account<WorkerTimes>>,
    waits: Waits,
    told: Instant,
}

/// How long contributions were queued, in seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Waits {
    count: u64,
    sum: f64,
    most: f64,
}

impl Waits {
    fn queued(self) -> Queued {
        Queued { mean: self.sum / (self.count.max(1) as f64), max: self.most }
    }
}

impl JobTimes {
    pub(super) fn start() -> Self {
        Self {
            origin: Instant::now(),
            stopwatch: Stopwatch::default(),
            steps: 0,
            modalities: BTreeMap::new(),
            waits: Waits::default(),
            told: Instant::now(),
        }
    }

    /// Adds the time since the last lap to `activity`.
    pub(super) fn lap(&mut self, activity: impl FnOnce(&mut CoordinatorTimes) -> &mut f64) {
        self.stopwatch.lap(self.origin.elapsed(), activity);
    }

    /// Counts a wait for an input: as idle if a worker had the head (`trains`).
    pub(super) fn waited(&mut self, trains: bool) {
        self.lap(|times| if trains { &mut times.idle } else { &mut times.other });
    }

    /// Counts the queueing time of a contribution that was received at `since`.
    pub(super) fn dequeued(&mut self, since: Instant) {
        let queued = since.elapsed().as_secs_f64();
        self.waits.count += 1;
        self.waits.sum += queued;
        self.waits.most = self.waits.most.max(queued);
    }

    /// Whether enough time has passed since the last `times` event.
    pub(super) fn is_long_ago(&self) -> bool {
        self.told.elapsed() >= AT_MOST_EVERY
    }

    /// Counts a step of the head.
    pub(super) fn stepped(&mut self) {
        self.steps += 1;
    }

    /// Adds a worker's times outside its steps.
    pub(super) fn spent(&mut self, modality: &ModalityName, times: WorkerTimes) {
        self.modalities.entry(modality.clone()).or_default().seconds += times;
    }

    /// Adds a worker's times of a step.
    pub(super) fn learned(&mut self, modality: &ModalityName, times: WorkerTimes) {
        self.modalities.entry(modality.clone()).or_default().add_step(times);
    }

    /// The `times` event. None while the head has taken no step.
    pub(super) fn event(&mut self, job: JobId, turn: Turn) -> Option<JobEvent> {
        if self.steps == 0 {
            return None;
        }
        self.told = Instant::now();
        let coordinator = Account { steps: self.steps, seconds: self.stopwatch.sums() };
        let (modalities, queued) = (self.modalities.clone(), self.waits.queued());
        Some(JobEvent::Times { job, turn, modalities, coordinator, queued })
    }
}
