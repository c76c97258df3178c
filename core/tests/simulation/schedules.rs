//! Whatever the schedule, the bits of the plain loop.

use std::collections::BTreeMap;

use crate::naive;
use crate::scenario::Scenario;
use crate::world::{self, Run};

/// Schedules that are tried unless `ANTIPHON_SIMULATIONS` says how many.
const SCHEDULES: u64 = 2_400;

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

#[expect(clippy::disallowed_methods, reason = "how much is tried is for whoever runs the tests to say")]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

#[test]
fn every_schedule_gives_the_bits_of_the_plain_loop() {
    if let Some(seed) = number("ANTIPHON_SIMULATION_SEED") {
        let scenario = Scenario::any(seed);
        let run = check(seed, &scenario);
        eprintln!("{scenario}\n{}\n{:#?}", run.trace.lines().join("\n"), run.report);
        return;
    }
    let schedules = number("ANTIPHON_SIMULATIONS").unwrap_or(SCHEDULES);
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 0..schedules {
        let scenario = Scenario::any(seed);
        let run = check(seed, &scenario);
        let refused = run.refused.keys().map(|reason| format!("refused: {reason}"));
        for kind in scenario.kinds().into_iter().chain(refused) {
            *seen.entry(kind).or_default() += 1;
        }
    }
    eprintln!("{seen:#?}");
}
