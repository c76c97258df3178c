//! The factor of a learning rate, and the projector's α, over the length of a job. Pure functions of progress.

use crate::spec::{Alpha, LearningRateSchedule};

/// The factor by which a schedule multiplies its learning rate.
///
/// `progress` is how far the job has come in epochs, a real number from 0; `total` is its whole length in epochs (only
/// `cosine` looks at it). The warm-up, linear from 0 to 1 over its epochs, multiplies every schedule.
#[must_use]
pub fn factor(schedule: &LearningRateSchedule, progress: f64, total: f64) -> f64 {
    match schedule {
        LearningRateSchedule::Constant { warmup } => rise(*warmup, progress),
        LearningRateSchedule::Step { at, factor, warmup } => {
            let passed = at.iter().filter(|epoch| **epoch <= progress).count();
            let passed = i32::try_from(passed).unwrap_or(i32::MAX);
            rise(*warmup, progress) * factor.powi(passed)
        }
        LearningRateSchedule::Cosine { floor, warmup } => {
            let done = if total > 0.0 { (progress / total).clamp(0.0, 1.0) } else { 1.0 };
            let half_wave = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
            rise(*warmup, progress) * (floor + (1.0 - floor) * half_wave)
        }
    }
}

fn rise(warmup: f64, progress: f64) -> f64 {
    if progress < warmup { (progress / warmup).max(0.0) } else { 1.0 }
}

/// The projector's regulariser α at batch `i` of the `n` batches in an epoch of the modality.
#[must_use]
pub fn alpha(alpha: &Alpha, i: u64, n: u64) -> f64 {
    match alpha {
        Alpha::Constant(value) => *value,
        Alpha::Decay => alpha_decay(i, n),
    }
}

/// 0.1^(1 + i/n): it falls from 0.1 at the first of an epoch's n batches towards 0.01 at the last, in every epoch.
#[must_use]
pub fn alpha_decay(i: u64, n: u64) -> f64 {
    let n = n.max(1);
    0.1_f64.powf(1.0 + (i % n) as f64 / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn every_schedule_stays_between_nothing_and_the_whole_rate() {
        let schedules = [
            LearningRateSchedule::Constant { warmup: 2.0 },
            LearningRateSchedule::Step { at: vec![3.0, 7.0], factor: 0.1, warmup: 2.0 },
            LearningRateSchedule::Cosine { floor: 0.05, warmup: 2.0 },
        ];
        for schedule in schedules {
            assert_eq!(factor(&schedule, 0.0, 10.0), 0.0);
            for tenth in 0..150 {
                let value = factor(&schedule, f64::from(tenth) / 10.0, 10.0);
                assert!((0.0..=1.0).contains(&value), "{schedule:?} gives {value}");
            }
        }
    }

    #[test]
    fn steps_multiply_at_their_epochs() {
        let schedule = LearningRateSchedule::Step { at: vec![70.0, 90.0], factor: 0.1, warmup: 0.0 };
        close(factor(&schedule, 0.0, 100.0), 1.0);
        close(factor(&schedule, 69.99, 100.0), 1.0);
        close(factor(&schedule, 70.0, 100.0), 0.1);
        close(factor(&schedule, 95.0, 100.0), 0.01);
    }

    #[test]
    fn a_cosine_falls_from_one_to_its_floor() {
        let schedule = LearningRateSchedule::Cosine { floor: 0.2, warmup: 0.0 };
        close(factor(&schedule, 0.0, 10.0), 1.0);
        close(factor(&schedule, 5.0, 10.0), 0.6);
        close(factor(&schedule, 10.0, 10.0), 0.2);
        close(factor(&schedule, 11.0, 10.0), 0.2);
    }

    #[test]
    fn a_warm_up_rises_linearly() {
        let schedule = LearningRateSchedule::Constant { warmup: 4.0 };
        close(factor(&schedule, 1.0, 10.0), 0.25);
        close(factor(&schedule, 4.0, 10.0), 1.0);
    }

    #[test]
    fn alpha_falls_tenfold_within_each_epoch() {
        close(alpha_decay(0, 6), 0.1);
        close(alpha_decay(3, 6), 0.1_f64.powf(1.5));
        close(alpha_decay(6, 6), 0.1);
        close(alpha_decay(5, 0), 0.1);
        close(alpha(&Alpha::Constant(0.3), 5, 6), 0.3);
        close(alpha(&Alpha::Decay, 7, 6), alpha_decay(1, 6));
    }
}
