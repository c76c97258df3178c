//! Where the time of the job's task goes, and of its workers as they say.

use std::collections::BTreeMap;
use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_core::ids::ModalityName;
use antiphon_core::times::{Account, CoordinatorTimes, Queued, Stopwatch, WorkerTimes};
use tokio::time::Instant;

use super::Job;

/// Epochs may be short: people are told of times no more often than this, but at the end.
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

/// How long contributions lay before they were taken up, in seconds.
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

    /// The time since the last lap went into `activity`.
    pub(super) fn lap(&mut self, activity: impl FnOnce(&mut CoordinatorTimes) -> &mut f64) {
        self.stopwatch.lap(self.origin.elapsed(), activity);
    }

    /// The task has looked for something to do: in vain while a worker had the head, if it `trains`.
    pub(super) fn waited(&mut self, trains: bool) {
        // What came since the last lap was said to be another thing only once it was over.
        self.lap(|times| if trains { &mut times.idle } else { &mut times.other });
    }

    /// A contribution is taken up that came in at `since`.
    pub(super) fn take_up(&mut self, since: Instant) {
        let lay = since.elapsed().as_secs_f64();
        self.waits.count += 1;
        self.waits.sum += lay;
        self.waits.most = self.waits.most.max(lay);
    }

    /// Whether enough time has passed since people were told last.
    pub(super) fn is_long_ago(&self) -> bool {
        self.told.elapsed() >= AT_MOST_EVERY
    }

    /// The head has taken a step.
    pub(super) fn stepped(&mut self) {
        self.steps += 1;
    }

    /// A worker says where its time went in no step.
    pub(super) fn spent(&mut self, modality: &ModalityName, times: WorkerTimes) {
        self.modalities.entry(modality.clone()).or_default().seconds += times;
    }

    /// A worker says where its time went in a step.
    pub(super) fn learned(&mut self, modality: &ModalityName, times: WorkerTimes) {
        self.modalities.entry(modality.clone()).or_default().add_step(times);
    }
}

impl Job {
    pub(super) fn emit_times(&mut self) {
        if self.times.steps == 0 {
            return;
        }
        self.times.told = Instant::now();
        let coordinator = Account { steps: self.times.steps, seconds: self.times.stopwatch.sums() };
        self.emit(&JobEvent::Times {
            job: self.id.clone(),
            turn: self.turn(),
            modalities: self.times.modalities.clone(),
            coordinator,
            queued: self.times.waits.queued(),
        });
    }
}
