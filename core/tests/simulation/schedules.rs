//! Whatever the schedule, the bits of the plain loop.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_core::spec::{Alpha, ApplyTo, Every, Length, ProjectionSpec, Reset, TurnOrder};

use crate::learner::TableSizes;
use crate::naive;
use crate::scenario::{Scenario, small_job};
use crate::world::{self, Run};

/// Schedules that are tried unless `ANTIPHON_SIMULATIONS` says how many.
const SCHEDULES: u64 = 3_000;

/// What there must be enough of among them: at least one schedule in fifty.
const KINDS: [&str; 39] = [
    "checkpoint every: epochs",
    "checkpoint every: the end",
    "checkpoint every: turns",
    "disturbed: false",
    "disturbed: true",
    "evaluation every: epochs",
    "evaluation every: the end",
    "evaluation every: turns",
    "length: in epochs",
    "length: in turns",
    "mode: pipelined",
    "mode: sequential",
    "modalities: 1",
    "modalities: 2",
    "modalities: 3",
    "modalities: 4",
    "modalities have different numbers of samples",
    "order: cyclic",
    "order: weak-first",
    "order: weighted",
    "projection: off",
    "projection: rls, constant, reset Epoch",
    "projection: rls, constant, reset Never",
    "projection: rls, decay, reset Epoch",
    "projection: rls, decay, reset Never",
    "projection: window",
    "refused: AlreadyApplied",
    "refused: Malformed",
    "refused: NotYourTurn",
    "refused: Shell",
    "refused: StaleAttempt",
    "refused: StaleHead",
    "refused: StaleTerm",
    "refused: StaleTurn",
    "refused: Unexpected",
    "turn_batches: 1",
    "turn_batches: 2",
    "turn_batches: 3",
    "weak-first: another order than the job's",
];

/// Seeds that are worth keeping, and what each is an example of: a seed means something else once scenarios are drawn in
/// another way, and that is to be seen.
const KEPT: [(u64, &[&str]); 5] = [
    // Each of these is the first that shows a mistake. An answer of a worker whose turn it is not, with everything else right.
    (4, &["refused: NotYourTurn", "turn_batches: 3"]),
    // The epoch's last fold and the reset after it, changed places.
    (12, &["projection: rls, constant, reset Epoch", "mode: pipelined"]),
    // Word that an encoder has learnt from an earlier step, taken for word of the one that is open.
    (14, &["disturbed: true", "mode: sequential", "turn_batches: 2"]),
    // A part that is saved while its encoder has yet to learn.
    (17, &["checkpoint every: turns", "mode: pipelined", "modalities: 4"]),
    // Losses of two epochs ago in the order of the turns.
    (30, &["weak-first: another order than the job's"]),
];

/// Simulates a scenario and compares it with the plain loop. Panics with everything that is needed to find out why not.
fn check(seed: u64, scenario: &Scenario) -> Run {
    let failure = match world::run(scenario) {
        Ok(run) => match run.report.differs_from(&naive::run(scenario)) {
            None => return run,
            Some(difference) => format!("the plain loop gives something else: {difference}\n{}", run.trace),
        },
        Err(broken) => format!("{}\n{}", broken.why, broken.trace),
    };
    panic!(
        "seed {seed}: {failure}\n{scenario}\nrun it again with\n  ANTIPHON_SIMULATION_SEED={seed} cargo test -p \
         antiphon-core --test simulation -- --nocapture"
    );
}

/// What a scenario, and what came of it, is an example of.
fn kinds(scenario: &Scenario, run: &Run) -> BTreeSet<String> {
    let mut kinds = scenario.kinds();
    kinds.extend(run.refused.keys().map(|reason| format!("refused: {reason}")));
    let sizes: BTreeSet<u64> = scenario.learners().iter().map(|learner| learner.sizes().train).collect();
    if sizes.len() > 1 {
        kinds.insert("modalities have different numbers of samples".to_owned());
    }
    let names: Vec<_> = scenario.job.modalities.iter().map(|modality| &modality.name).collect();
    let in_order = |step: &crate::report::StepRecord| *names[step.turn.0 as usize % names.len()] == step.modality;
    if scenario.job.schedule.order == TurnOrder::WeakFirst && !run.report.steps.iter().all(in_order) {
        kinds.insert("weak-first: another order than the job's".to_owned());
    }
    kinds
}

#[expect(clippy::disallowed_methods, reason = "how much is tried is for whoever runs the tests to say")]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[expect(clippy::print_stderr, reason = "somebody wants to see what one seed does")]
fn show(seed: u64) {
    let scenario = Scenario::any(seed);
    let run = check(seed, &scenario);
    let lines = run.trace.lines().join("\n");
    eprintln!("seed {seed} gives the bits of the plain loop\n{lines}\n{scenario}\n{:#?}", run.report);
}

#[test]
fn every_schedule_gives_the_bits_of_the_plain_loop() {
    if let Some(seed) = number("ANTIPHON_SIMULATION_SEED") {
        return show(seed);
    }
    let schedules = number("ANTIPHON_SIMULATIONS").unwrap_or(SCHEDULES);
    let (mut seen, mut steps) = (BTreeMap::<String, u64>::new(), 0);
    for seed in 0..schedules {
        let scenario = Scenario::any(seed);
        let run = check(seed, &scenario);
        steps += run.report.steps.len() as u64;
        for kind in kinds(&scenario, &run) {
            *seen.entry(kind).or_default() += 1;
        }
    }
    if schedules >= SCHEDULES {
        let rare = |kind: &&&str| seen.get(**kind).copied().unwrap_or(0) < schedules / 50;
        let rare: Vec<_> = KINDS.iter().filter(rare).collect();
        assert!(rare.is_empty(), "there is too little of {rare:?} in {seen:#?}");
        assert!(steps >= 15 * schedules, "{steps} steps are few for {schedules} schedules");
    }
}

#[test]
fn seeds_that_were_kept_give_the_bits_of_the_plain_loop() {
    for (seed, expected) in KEPT {
        let scenario = Scenario::any(seed);
        let kinds = kinds(&scenario, &check(seed, &scenario));
        let missing: Vec<_> = expected.iter().filter(|kind| !kinds.contains(**kind)).collect();
        assert!(missing.is_empty(), "seed {seed} is no longer an example of {missing:?}, but of {kinds:?}");
    }
}

/// A job with something of everything: three epochs of nine turns of two steps.
fn eventful() -> Scenario {
    let mut job = small_job(11, &["text", "audio", "image"]);
    job.head.projection = ProjectionSpec::Rls { alpha: Alpha::Decay, reset: Reset::Epoch, apply_to: ApplyTo::Update };
    job.schedule.length = Length::Epochs(3);
    job.schedule.order = TurnOrder::WeakFirst;
    job.schedule.turn_batches = 2;
    job.evaluation.every = Every::Epochs(1);
    job.checkpoints.every = Every::Turns(4);
    let sizes = TableSizes { train: 22, validation: 5, test: 0, missing: 0 };
    let tables = (0..3).map(|at| TableSizes { missing: 20 * at, ..sizes }).collect();
    Scenario { tables, ..Scenario::quiet(job) }
}

#[test]
fn one_job_under_any_schedule_has_one_result() {
    let job = eventful();
    let expected = naive::run(&job);
    assert_eq!((expected.steps.len(), expected.evaluations.len(), expected.checkpoints.len()), (54, 3, 7));
    let mut traces = BTreeSet::new();
    for seed in 0..100 {
        let scenario = job.clone().under_schedule(seed);
        let run = world::run(&scenario).unwrap_or_else(|broken| panic!("schedule {seed}: {}", broken.why));
        assert_eq!(run.report.differs_from(&expected), None, "schedule {seed}");
        traces.insert(run.trace.digest());
    }
    assert_eq!(traces.len(), 100, "schedules that are the same");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let mut digests = BTreeSet::new();
    for seed in 0..200 {
        let trace = |seed| check(seed, &Scenario::any(seed)).trace;
        let (first, again) = (trace(seed), trace(seed));
        assert!(first == again, "seed {seed}:\n{first}\nis not\n{again}");
        assert_eq!(first.digest(), again.digest());
        digests.insert(first.digest());
    }
    assert_eq!(digests.len(), 200, "seeds with the same trace");
}

/// The comparison would see the smallest thing: another seed of the job is another job.
#[test]
fn another_job_has_another_result() {
    let scenario = eventful();
    let mut other = scenario.clone();
    other.job.seed += 1;
    let run = world::run(&other).unwrap_or_else(|broken| panic!("{}", broken.why));
    assert!(run.report.differs_from(&naive::run(&scenario)).is_some());
}
