//! Where the time of a job goes. These figures go into reports and change nothing else.

use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the time of a worker's computing thread went, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerTimes {
    /// Waiting for the next batch to be read and decoded.
    pub data: f64,
    /// The encoder's forward pass.
    pub forward: f64,
    /// Waiting for the head.
    pub waiting: f64,
    /// The worker's half of a head step: logits, loss and gradients.
    pub head: f64,
    /// Encoding, decoding and forwarding messages.
    pub exchange: f64,
    /// The encoder's backward pass and its optimizer.
    pub backward: f64,
    /// Evaluation and checkpoints.
    pub other: f64,
}

/// Where the time of a job's task on the coordinator went, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorTimes {
    /// Decoding and checking contributions.
    pub decode: f64,
    /// Projecting the gradient: G P.
    pub project: f64,
    /// The head's optimizer.
    pub step: f64,
    /// Folding mean features into P.
    pub fold: f64,
    /// Encoding grants.
    pub encode: f64,
    /// Waiting for contributions.
    pub idle: f64,
    /// Evaluation, checkpoints, events, and waiting until messages are sent.
    pub other: f64,
}

/// Times of several activities.
pub trait Times: Copy + Default + AddAssign {
    /// Names and seconds, in the order in which they are shown.
    fn entries(&self) -> Vec<(&'static str, f64)>;

    /// Their sum, in seconds.
    fn total(&self) -> f64 {
        self.entries().iter().map(|(_, seconds)| seconds).sum()
    }
}

impl Times for WorkerTimes {
    fn entries(&self) -> Vec<(&'static str, f64)> {
        let Self { data, forward, waiting, head, exchange, backward, other } = *self;
        vec![
            ("data", data),
            ("forward", forward),
            ("waiting", waiting),
            ("head", head),
            ("exchange", exchange),
            ("backward", backward),
            ("other", other),
        ]
    }
}

impl Times for CoordinatorTimes {
    fn entries(&self) -> Vec<(&'static str, f64)> {
        let Self { decode, project, step, fold, encode, idle, other } = *self;
        vec![
            ("decode", decode),
            ("project", project),
            ("step", step),
            ("fold", fold),
            ("encode", encode),
            ("idle", idle),
            ("other", other),
        ]
    }
}

impl AddAssign for WorkerTimes {
    fn add_assign(&mut self, more: Self) {
        self.data += more.data;
        self.forward += more.forward;
        self.waiting += more.waiting;
        self.head += more.head;
        self.exchange += more.exchange;
        self.backward += more.backward;
        self.other += more.other;
    }
}

impl AddAssign for CoordinatorTimes {
    fn add_assign(&mut self, more: Self) {
        self.decode += more.decode;
        self.project += more.project;
        self.step += more.step;
        self.fold += more.fold;
        self.encode += more.encode;
        self.idle += more.idle;
        self.other += more.other;
    }
}

/// Times, and the number of steps that they cover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Account<T> {
    /// The number of head steps.
    pub steps: u64,
    /// Seconds per activity, summed over these steps.
    pub seconds: T,
}

impl<T: Times> Account<T> {
    /// Adds the times of one step.
    pub fn add_step(&mut self, seconds: T) {
        self.steps += 1;
        self.seconds += seconds;
    }
}

/// How long contributions waited in the queue of their job's task, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    /// The mean wait.
    pub mean: f64,
    /// The longest wait.
    pub max: f64,
}

/// Divides the time that passes among activities. It has no clock: the caller gives the time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stopwatch<T> {
    last: Duration,
    sums: T,
}

impl<T: Times> Stopwatch<T> {
    /// Starts at `now`, counted from an origin that the caller chose.
    #[must_use]
    pub fn starting_at(now: Duration) -> Self {
        Self { last: now, sums: T::default() }
    }

    /// Adds the time since the last lap to `activity`.
    pub fn lap(&mut self, now: Duration, activity: impl FnOnce(&mut T) -> &mut f64) {
        *activity(&mut self.sums) += now.saturating_sub(self.last).as_secs_f64();
        self.last = now;
    }

    /// The times since the last call, which are then reset.
    pub fn take(&mut self) -> T {
        std::mem::take(&mut self.sums)
    }

    /// The times since the last [`Self::take`], which stay.
    #[must_use]
    pub fn sums(&self) -> T {
        self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_time_that_passes_is_shared_out() {
        let at = Duration::from_millis;
        let mut watch = Stopwatch::<WorkerTimes>::starting_at(at(100));
        watch.lap(at(130), |t| &mut t.forward);
        watch.lap(at(131), |t| &mut t.head);
        watch.lap(at(161), |t| &mut t.forward);
        let taken = watch.take();
        assert!((taken.forward - 0.060).abs() < 1e-12 && (taken.head - 0.001).abs() < 1e-12, "{taken:?}");
        assert!((taken.total() - 0.061).abs() < 1e-12);
        watch.lap(at(150), |t| &mut t.other);
        assert_eq!(watch.take(), WorkerTimes::default(), "time does not go back");
    }

    #[test]
    fn an_account_counts_steps() {
        let mut account = Account::<CoordinatorTimes>::default();
        account.add_step(CoordinatorTimes { fold: 1.0, ..Default::default() });
        account.add_step(CoordinatorTimes { fold: 0.5, idle: 2.0, ..Default::default() });
        assert_eq!((account.steps, account.seconds.fold, account.seconds.total()), (2, 1.5, 3.5));
    }
}
