//! Where the time of the job's task goes, and of its workers as they say.

use std::collections::BTreeMap;

use antiphon_core::event::JobEvent;
use antiphon_core::ids::ModalityName;
use antiphon_core::times::{Account, CoordinatorTimes, Queued, Stopwatch, WorkerTimes};
use tokio::time::Instant;

use super::Job;

/// The accounts of one job.
#[derive(Debug)]
pub(super) struct JobTimes {
    origin: Instant,
    stopwatch: Stopwatch<CoordinatorTimes>,
    coordinator: Account<CoordinatorTimes>,
    modalities: BTreeMap<ModalityName, Account<WorkerTimes>>,
    /// Contributions that were taken up, and how long they lay before, in seconds: together, and the longest.
    taken_up: (u64, f64, f64),
}

impl JobTimes {
    pub(super) fn start() -> Self {
        Self {
            origin: Instant::now(),
            stopwatch: Stopwatch::default(),
            coordinator: Account::default(),
            modalities: BTreeMap::new(),
            taken_up: (0, 0.0, 0.0),
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
        let (count, sum, most) = &mut self.taken_up;
        let lay = since.elapsed().as_secs_f64();
        (*count, *sum, *most) = (*count + 1, *sum + lay, most.max(lay));
    }

    fn queued(&self) -> Queued {
        let (count, sum, most) = self.taken_up;
        Queued { mean: sum / (count.max(1) as f64), most }
    }

    /// The head has taken a step.
    pub(super) fn stepped(&mut self) {
        self.coordinator.steps += 1;
    }

    /// A worker says where its time went in a step.
    pub(super) fn learned(&mut self, modality: &ModalityName, times: WorkerTimes) {
        self.modalities.entry(modality.clone()).or_default().add_step(times);
    }
}

impl Job {
    pub(super) fn emit_times(&self) {
        if self.times.coordinator.steps == 0 {
            return;
        }
        let mut coordinator = self.times.coordinator;
        coordinator.seconds = self.times.stopwatch.sums();
        self.emit(&JobEvent::Times {
            job: self.id.clone(),
            turn: self.turn(),
            modalities: self.times.modalities.clone(),
            coordinator,
            queued: self.times.queued(),
        });
    }
}
