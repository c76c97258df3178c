//! How long a job takes, in virtual time: as long as its slowest encoder if it is pipelined, as long as all encoders if
//! it is sequential.

use std::rc::Rc;

use antiphon_core::ids::ModalityName;
use antiphon_core::spec::{Alpha, ApplyTo, ProjectionSpec, Reset, ScheduleMode};

use crate::delays::{CoordinatorDelays, Delay, WorkerDelays};
use crate::learner::TableSizes;
use crate::scenario::{Scenario, small_job};
use crate::{naive, world};

const CYCLES: u64 = 50;
/// Until every encoder has had its first turn and runs ahead.
const WARM_UP: usize = 3;

// A head step of 1 ms, in µs.
const MESSAGE: u64 = 100;
const LOCAL_STEP: u64 = 400;
const APPLY: u64 = 400;
const HEAD_STEP: u64 = MESSAGE + LOCAL_STEP + MESSAGE + APPLY;
const FOLD: u64 = 200;

/// How long an encoder's passes take, in µs.
#[derive(Clone, Copy)]
struct Encoder {
    forward: u64,
    learn: u64,
}

impl Encoder {
    fn sum(self) -> u64 {
        self.forward + self.learn
    }
}

/// The median cycle time of these encoders. The time of each step varies by `spread` per cent.
fn cycle(encoders: &[Encoder], mode: ScheduleMode, spread: u64) -> u64 {
    let about = |micros: u64| match spread {
        0 => Delay::Fixed(micros),
        _ => Delay::Uniform(micros - micros * spread / 100, micros + micros * spread / 100),
    };
    let mut job = small_job(3, &["text", "audio", "image", "depth"][..encoders.len()]);
    job.schedule.mode = mode;
    job.head.projection = ProjectionSpec::Rls { alpha: Alpha::Decay, reset: Reset::Never, apply_to: ApplyTo::Gradient };
    let train = CYCLES * u64::from(job.schedule.batch);
    let quiet = Scenario::quiet(job);
    let worker = |encoder: &Encoder| WorkerDelays {
        forward: about(encoder.forward),
        learn: about(encoder.learn),
        local_step: about(LOCAL_STEP),
        inbound: about(MESSAGE),
        outbound: about(MESSAGE),
        ..quiet.workers[0]
    };
    let scenario = Scenario {
        tables: vec![TableSizes { train, validation: 0, test: 0, missing: 0 }; encoders.len()],
        coordinator: CoordinatorDelays { apply: about(APPLY), fold: about(FOLD), manifest: Delay::Fixed(0) },
        workers: encoders.iter().map(worker).collect(),
        ..quiet.clone()
    };
    let naive = Rc::new(naive::run(&scenario));
    let run = world::run(&scenario, &naive).unwrap_or_else(|broken| panic!("{}\n{}", broken.why, broken.trace));
    let first = ModalityName::try_from("text").expect("a good name");
    let times: Vec<u64> = run.applied.iter().filter(|(_, name)| *name == first).map(|(at, _)| at.0).collect();
    assert_eq!(times.len() as u64, CYCLES);
    let mut cycles: Vec<u64> = times.windows(2).skip(WARM_UP).map(|pair| pair[1] - pair[0]).collect();
    cycles.sort_unstable();
    cycles[cycles.len() / 2]
}

fn assert_within(per_cent: f64, measured: u64, expected: u64) {
    let off = (measured as f64 / expected as f64 - 1.0).abs() * 100.0;
    assert!(off <= per_cent, "{measured} µs are {off:.1} % off {expected} µs");
}

const UNEQUAL: [Encoder; 3] = [
    Encoder { forward: 3_000, learn: 6_000 },
    Encoder { forward: 100_000, learn: 200_000 },
    Encoder { forward: 20_000, learn: 40_000 },
];

fn slowest(encoders: &[Encoder]) -> u64 {
    encoders.iter().map(|encoder| encoder.sum()).max().expect("an encoder")
}

#[test]
fn pipelined_a_cycle_takes_the_slowest_encoder_and_the_head() {
    let expected = slowest(&UNEQUAL) + 3 * HEAD_STEP;
    for spread in [0, 10] {
        assert_within(5.0, cycle(&UNEQUAL, ScheduleMode::Pipelined, spread), expected);
    }
    // The head arrives before the slowest encoder's features are ready, so even the messages cost nothing.
    assert_eq!(cycle(&UNEQUAL, ScheduleMode::Pipelined, 0), slowest(&UNEQUAL) + LOCAL_STEP);
}

#[test]
fn sequential_a_cycle_takes_as_long_as_all_encoders_together() {
    let all: u64 = UNEQUAL.iter().map(|encoder| encoder.sum()).sum();
    for spread in [0, 10] {
        assert_within(5.0, cycle(&UNEQUAL, ScheduleMode::Sequential, spread), all + 3 * HEAD_STEP);
    }
    // The head steps while the encoder learns; every encoder waits for the fold and the next grant.
    let between = MESSAGE + LOCAL_STEP + MESSAGE + FOLD;
    assert_eq!(cycle(&UNEQUAL, ScheduleMode::Sequential, 0), all + 3 * between);
}

#[test]
fn two_encoders_that_cost_the_same_take_half_the_time_pipelined() {
    let encoder = Encoder { forward: 33_000, learn: 67_000 };
    assert_eq!(encoder.sum(), 100 * HEAD_STEP);
    for spread in [0, 10] {
        let time = |mode| cycle(&[encoder; 2], mode, spread) as f64;
        let gain = time(ScheduleMode::Sequential) / time(ScheduleMode::Pipelined);
        assert!(gain > 1.85, "pipelining gains {gain}");
    }
}

#[test]
fn fast_encoders_wait_for_the_head_and_never_for_the_fold() {
    let encoder = Encoder { forward: 300, learn: 700 };
    assert_eq!(cycle(&[encoder; 4], ScheduleMode::Pipelined, 0), 4 * HEAD_STEP);
}
