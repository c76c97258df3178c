//! Every schedule gives the bits of the plain loop.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use antiphon_core::spec::{Alpha, ApplyTo, Every, Length, ProjectionSpec, Reset, TurnOrder};

use crate::learner::TableSizes;
use crate::naive;
use crate::playback::play;
use crate::scenario::{Scenario, small_job};
use crate::trace::Trace;
use crate::world::{self, Run};

/// The number of schedules, unless `ANTIPHON_SIMULATIONS` sets it.
const SCHEDULES: u64 = 10_000;

/// Kinds that at least one schedule in two hundred must belong to.
const KINDS: &[&str] = &[
    "checkpoint every: epochs",
    "checkpoint every: the end",
    "checkpoint every: turns",
    "disturbed: false",
    "disturbed: true",
    "died: computing ahead",
    "died: idle",
    "evaluation every: epochs",
    "evaluation every: the end",
    "evaluation every: turns",
    "faults: false",
    "faults: true",
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
    "seen: a connection is lost",
    "seen: a job stopped with all that it had learned",
    "seen: a job was asked twice to stop",
    "seen: a message of an older term came late",
    "seen: a slot was reclaimed",
    "seen: a lease expired without heartbeats",
    "seen: a lease expired without progress",
    "seen: a turn was granted again",
    "seen: a wait was reported",
    "seen: a worker dies",
    "seen: a worker hangs",
    "seen: a worker leaves",
    "seen: a worker pauses",
    "seen: a failed worker backed off",
    "seen: the slot of a worker that backs off was released",
    "seen: a worker that had lost its slot was refused",
    "seen: an evaluation was abandoned",
    "seen: the replay buffer was nearly full",
    "seen: manifests take long",
    "seen: the replay buffer was full",
    "seen: the user asked to stop",
    "seen: steps were replayed",
    "seen: the coordinator dies",
    "seen: the coordinator is replaced",
    "seen: the coordinator pauses",
    "seen: the coordinator stalled",
    "seen: the store fails",
    "turn_batches: 1",
    "turn_batches: 2",
    "turn_batches: 3",
    "weak-first: another order than the job's",
];

/// Rare kinds, that at least one schedule in five thousand must belong to.
const SELDOM: &[&str] = &[
    "died: evaluating",
    "died: holding the head",
    "died: learning",
    "died: opening",
    "died: replaying",
    "seen: a job stopped at once",
    "seen: a checkpoint was there that the coordinator had not heard of",
    "seen: a coordinator was lost between files and manifest",
    "seen: a manifest of an older term was refused",
    "seen: a result came from a worker that had lost its slot",
];

/// Seeds of past failures and the kinds that they belong to. If scenarios are drawn in another way, the kinds change
/// and the test shows it.
const KEPT: [(u64, &[&str]); 4] = [
    // Each of these was the first to show a bug of the turn machine. A checkpoint was due because the replay
    // buffer was nearly full, and the pending one did not free enough when it was full: no other checkpoint began.
    (28, &["seen: the replay buffer was full"]),
    // The coordinator stalled while it waited, and was woken again and again to report it.
    (68, &["seen: the coordinator stalled"]),
    // An evaluation waited for a worker that had gone silent, and no message said so.
    (89, &["faults: true"]),
    // A worker had stopped for longer than a turn may take: its deadline was in the past when it woke up, and the
    // coordinator wrongly concluded that it had stalled itself.
    (34_895, &["seen: a lease expired without heartbeats", "seen: a slot was reclaimed"]),
];

/// Simulates a scenario and compares it with the plain loop.
fn simulate(scenario: &Scenario) -> Result<Run, String> {
    let naive = Rc::new(naive::run(scenario));
    match world::run(scenario, &naive) {
        Ok(run) => match run.differs_from(&naive) {
            None => Ok(run),
            Some(difference) => Err(format!("the plain loop gives something else: {difference}\n{}", run.trace)),
        },
        Err(broken) => Err(format!("{}\n{}", broken.why, broken.trace)),
    }
}

/// As [`simulate`], but panics on a difference, with everything that is needed to investigate it.
fn check(seed: u64, scenario: &Scenario) -> Run {
    simulate(scenario).unwrap_or_else(|why| fail(seed, scenario, &why))
}

fn fail(seed: u64, scenario: &Scenario, why: &str) -> ! {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("simulation-{seed}.jsonl"));
    let written = std::fs::write(&file, record(scenario));
    let trace = file.display();
    panic!(
        "seed {seed}: {why}\n{scenario}\nits trace is {trace} ({written:?}); run it again with\n  \
         ANTIPHON_SIMULATION_SEED={seed} cargo test -p antiphon-core --test simulation -- --nocapture"
    )
}

/// The trace file of a scenario, whether it fails or not.
fn record(scenario: &Scenario) -> String {
    let naive = Rc::new(naive::run(scenario));
    let mut trace = match world::run_traced(scenario, &naive, Trace::recording()) {
        Ok(run) => run.trace,
        Err(broken) => broken.trace,
    };
    trace.take_recording().map(|recording| recording.file(scenario)).unwrap_or_default()
}

/// The kinds that a scenario and its run belong to.
fn kinds(scenario: &Scenario, run: &Run) -> BTreeSet<String> {
    let mut kinds = scenario.kinds();
    kinds.extend(run.seen.iter().cloned());
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

#[expect(clippy::disallowed_methods, reason = "the person who runs the test chooses what is tried")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Shows what one seed does, and writes its trace to a file if one is named.
#[expect(clippy::print_stderr, reason = "a person wants to see what one seed does")]
fn show(seed: u64) {
    let scenario = Scenario::any(seed);
    if let Some(file) = variable("ANTIPHON_SIMULATION_TRACE") {
        std::fs::write(&file, record(&scenario)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let run = check(seed, &scenario);
    let lines = run.trace.lines().join("\n");
    let kinds = kinds(&scenario, &run);
    eprintln!("seed {seed} gives the bits of the plain loop\n{lines}\n{scenario}\n{kinds:#?}\n{:#?}", run.report);
}

/// The results of many seeds.
#[derive(Default)]
struct Summary {
    seen: BTreeMap<String, u64>,
    steps: u64,
    /// The seeds that failed, and why.
    failed: BTreeMap<u64, String>,
}

impl Summary {
    fn add(&mut self, seed: u64) {
        let scenario = Scenario::any(seed);
        match simulate(&scenario) {
            Err(why) => {
                self.failed.insert(seed, why);
            }
            Ok(run) => {
                self.steps += run.report.steps.len() as u64;
                for kind in kinds(&scenario, &run) {
                    *self.seen.entry(kind).or_default() += 1;
                }
            }
        }
    }

    fn and(mut self, other: Self) -> Self {
        for (kind, count) in other.seen {
            *self.seen.entry(kind).or_default() += count;
        }
        self.failed.extend(other.failed);
        Self { steps: self.steps + other.steps, ..self }
    }
}

/// Tries the seeds below this on all processors. Runs are independent of each other, so the outcome is that of one
/// thread.
#[expect(clippy::disallowed_methods, reason = "seeds are independent of each other")]
fn try_all(seeds: u64) -> Summary {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    std::thread::scope(|scope| {
        let worker = |first: u64| {
            scope.spawn(move || {
                let mut summary = Summary::default();
                (first..seeds).step_by(threads as usize).for_each(|seed| summary.add(seed));
                summary
            })
        };
        let shares: Vec<_> = (0..threads).map(worker).collect();
        let done = shares.into_iter().map(|share| share.join().expect("a run does not panic"));
        done.fold(Summary::default(), Summary::and)
    })
}

#[test]
fn every_schedule_gives_the_bits_of_the_plain_loop() {
    if let Some(seed) = number("ANTIPHON_SIMULATION_SEED") {
        return show(seed);
    }
    let schedules = number("ANTIPHON_SIMULATIONS").unwrap_or(SCHEDULES);
    let Summary { seen, steps, failed } = try_all(schedules);
    if let Some((seed, why)) = failed.first_key_value() {
        let first = |why: &String| why.lines().next().unwrap_or_default().to_owned();
        let all: Vec<_> = failed.iter().take(20).map(|(seed, why)| format!("{seed}: {}", first(why))).collect();
        fail(*seed, &Scenario::any(*seed), &format!("{why}\n{} fail, the first are {all:#?}", failed.len()));
    }
    if schedules >= SCHEDULES {
        let rare = |kinds: &[&'static str], per: u64| -> Vec<&str> {
            let count = |kind: &&str| seen.get(*kind).copied().unwrap_or(0);
            kinds.iter().filter(|kind| count(kind) < schedules / per).copied().collect()
        };
        let rare = [rare(KINDS, 200), rare(SELDOM, 5_000)].concat();
        assert!(rare.is_empty(), "there is too little of {rare:?} in {seen:#?}");
        assert!(steps >= 15 * schedules, "{steps} steps are few for {schedules} schedules");
    }
}

#[test]
fn a_trace_file_plays_back_to_the_same_effects() {
    if let (None, Some(file)) = (number("ANTIPHON_SIMULATION_SEED"), variable("ANTIPHON_SIMULATION_TRACE")) {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let count = play(&text).unwrap_or_else(|difference| panic!("{file}: {difference}"));
        assert!(count > 0, "{file} holds nothing");
        return;
    }
    for seed in 0..30 {
        let file = record(&Scenario::any(seed));
        let count = play(&file).unwrap_or_else(|difference| panic!("seed {seed}: {difference}"));
        assert!(count >= 3, "seed {seed}: no worker joined");
        // A changed record is detected, and so is a missing one.
        let lines: Vec<&str> = file.lines().collect();
        let join = lines.iter().position(|line| line.contains("\"Joined\"")).expect("a worker joined");
        let without: Vec<&str> = [&lines[..join], &lines[join + 1..]].concat();
        assert!(play(&without.join("\n")).is_err(), "seed {seed} without a record");
        let other = file.replacen("\"lease\":0", "\"lease\":7", 1);
        assert!(play(&other).is_err(), "seed {seed} with another effect");
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

/// A job with a bit of everything: three epochs of nine turns of two steps.
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
    let naive = Rc::new(naive::run(&job));
    let expected = &naive.report;
    assert_eq!((expected.steps.len(), expected.evaluations.len(), expected.checkpoints.len()), (54, 3, 7));
    let mut traces = BTreeSet::new();
    for seed in 0..100 {
        let scenario = job.clone().under_schedule(seed);
        let run = world::run(&scenario, &naive).unwrap_or_else(|broken| panic!("schedule {seed}: {}", broken.why));
        assert_eq!(run.differs_from(&naive), None, "schedule {seed}");
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

/// The comparison detects the smallest difference: another seed gives another job.
#[test]
fn another_job_has_another_result() {
    let scenario = eventful();
    let mut other = scenario.clone();
    other.job.seed += 1;
    let run = world::run(&other, &Rc::new(naive::run(&other))).unwrap_or_else(|broken| panic!("{}", broken.why));
    assert!(run.differs_from(&naive::run(&scenario)).is_some());
}
